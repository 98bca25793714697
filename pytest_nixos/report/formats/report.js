"use strict";
// Everything of a guest arrives as text and is set by textContent: nothing of it is ever markup.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const { controls, hosts, strings, rows, details, outcomes, severities } = data;
  const STEP = 200;
  const byId = (id) => document.getElementById(id);
  const text = (index) => (index < 0 ? "" : strings[index]);
  const make = (tag, content, className) => {
    const node = document.createElement(tag);
    if (content !== undefined && content !== "") node.textContent = content;
    if (className) node.className = className;
    return node;
  };
  const searchable = rows.map(([c, h, , reason]) =>
    `${controls[c][0]} ${controls[c][1]} ${hosts[h]} ${text(reason)}`.toLowerCase());
  let chosen = [];
  let shown = 0;
  let heading = null;

  const filters = ["host", "suite", "severity", "outcome", "group"].map(byId);
  const [host, suite, severity, outcome, group] = filters;
  const query = byId("query");

  const fits = (row, index, words) => {
    const [c, h, o] = row;
    const control = controls[c];
    const failed = outcomes[o] === "failed" || outcomes[o] === "error";
    return (host.value === "" || hosts[h] === host.value)
      && (suite.value === "" || control[2] === suite.value)
      && (severity.value === "" || severities[control[3]] === severity.value)
      && (outcome.value === "" || (outcome.value === "to-mend" ? failed : outcomes[o] === outcome.value))
      && words.every((word) => searchable[index].includes(word));
  };

  const term = (list, name, content) => {
    if (content === undefined || content === "") return;
    list.append(make("dt", name));
    const value = make("dd");
    value.append(typeof content === "string" ? make("pre", content) : content);
    list.append(value);
  };

  const body = (row) => {
    const [c, , , reason, d] = row;
    const control = controls[c];
    const list = make("dl");
    const detail = d < 0 ? {} : details[d];
    term(list, "why", text(detail.why ?? reason));
    if (detail.places) {
      const places = make("ul");
      for (const [spot, words] of detail.places) {
        const item = make("li");
        item.append(make("code", text(spot)), ` ${text(words)}`);
        places.append(item);
      }
      term(list, "where", places);
    }
    term(list, "echo of", (detail.causes ?? []).join(", "));
    term(list, "explains", (detail.explains ?? []).join(", "));
    term(list, "expected", text(detail.expected ?? -1));
    term(list, "observed", text(detail.observed ?? -1));
    term(list, "judged on", text(detail.judged ?? -1));
    term(list, "meanwhile", text(detail.meanwhile ?? -1));
    term(list, "risk", control[4]);
    term(list, "remedy", text(detail.remedy ?? -1));
    term(list, "check by hand", text(detail.hand ?? -1));
    term(list, "references", control[5]);
    for (const [name, content] of detail.attached ?? []) term(list, text(name), text(content));
    if (detail.journal) {
      const table = make("table");
      table.append(make("caption", "journal meanwhile"));
      for (const [clock, unit, message, warning] of detail.journal) {
        const line = make("tr", "", warning ? "warn" : "");
        line.append(make("td", clock), make("td", text(unit)), make("td", text(message)));
        table.append(line);
      }
      term(list, "journal", table);
    }
    return list;
  };

  const entry = (row) => {
    const [c, h, o, , d] = row;
    const control = controls[c];
    const node = make("details", "", outcomes[o]);
    const summary = make("summary");
    const against = d < 0 ? "" : details[d].against ?? "";
    summary.append(make("b", control[0]), ` ${control[1]} `,
      make("span", `${hosts[h]}, ${severities[control[3]]}, ${outcomes[o]}${against ? `, ${against}` : ""}`, "quiet"));
    node.append(summary);
    // A body is made when it is first looked at: 45,000 of them would take seconds.
    node.addEventListener("toggle", () => {
      if (node.open && node.childElementCount === 1) node.append(body(row));
    });
    return node;
  };

  const groupOf = ([c, h, , , d]) => {
    switch (group.value) {
      case "host": return hosts[h];
      case "control": return `${controls[c][0]} ${controls[c][1]}`;
      case "cause": {
        const causes = d < 0 ? undefined : details[d].causes;
        return `${hosts[h]}: ${causes && causes.length ? causes[0] : controls[c][0]}`;
      }
      default: return "";
    }
  };

  const more = (count) => {
    const list = byId("list");
    const part = document.createDocumentFragment();
    for (const row of chosen.slice(shown, shown + count)) {
      const name = groupOf(row);
      if (name !== heading) {
        heading = name;
        if (name) part.append(make("h3", name));
      }
      part.append(entry(row));
    }
    list.append(part);
    shown = Math.min(chosen.length, shown + count);
    byId("more").hidden = shown >= chosen.length;
    byId("count").textContent = `${chosen.length} of ${rows.length} findings, ${shown} listed`;
  };

  const draw = () => {
    const words = query.value.toLowerCase().split(/\s+/).filter(Boolean);
    chosen = rows.filter((row, index) => fits(row, index, words));
    if (group.value !== "") {
      const names = new Map();
      for (const row of chosen) {
        const name = groupOf(row);
        if (!names.has(name)) names.set(name, []);
        names.get(name).push(row);
      }
      chosen = [...names.values()].flat();
    }
    byId("list").replaceChildren();
    shown = 0;
    heading = null;
    more(STEP);
  };

  for (const filter of filters) filter.addEventListener("change", draw);
  let waiting = 0;
  query.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(draw, 120);
  });
  byId("more").addEventListener("click", () => more(STEP));
  byId("unfold").addEventListener("click", () => {
    for (const node of byId("list").querySelectorAll("details")) node.open = true;
  });
  for (const button of document.querySelectorAll("button[data-host]")) {
    button.addEventListener("click", () => {
      host.value = button.dataset.host;
      suite.value = button.dataset.suite ?? "";
      outcome.value = "";
      draw();
      byId("findings").scrollIntoView();
    });
  }
  // On paper everything that is to be mended is there, unfolded.
  addEventListener("beforeprint", () => {
    more(chosen.length);
    for (const node of byId("list").querySelectorAll("details.failed, details.error")) {
      node.open = true;
      if (node.childElementCount === 1) node.dispatchEvent(new Event("toggle"));
    }
  });
  draw();
  document.documentElement.dataset.ready = "yes";
})();
