"""Pages about every suite and control, an index by standard, and tables of coverage, all from
the catalogue.

The repository keeps one page a suite; only the built site has one page a control besides (see
:mod:`docs.generate.site`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pytest_nixos.standards.control.model import STANDARDS, Control, Operator, Remedy, Suite
from pytest_nixos.standards.coverage import COVERED, Clause, coverage
from pytest_nixos.standards.explain import how_judged, reference_lines, remedy_scope, whose_word
from pytest_nixos.standards.frameworks import frameworks
from pytest_nixos.standards.kinds import KINDS
from pytest_nixos.standards.load import Catalogue
from pytest_nixos.standards.profile import Profile, select_controls

__all__ = ["pages"]

_MADE = "<!-- Made by `./dev docs`; edit the catalogue instead. -->\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Writer:
    """Writes the pages of one catalogue.

    :param page_each: whether each control has a page of its own; without, a link leads to its row
        in the suite's page.
    """

    catalogue: Catalogue
    profiles: Mapping[str, Profile]
    page_each: bool

    def pages(self) -> Mapping[str, str]:
        """Return every page by its path below the directory of the pages."""
        found = {
            "README.md": _index(self.catalogue, self.profiles),
            "format.md": _format_page(),
            "by-standard.md": self._by_standard(),
        }
        found |= {f"coverage-{key}.md": self._coverage_page(key) for key in COVERED}
        suites = self.catalogue.suites.values()
        found |= {f"{suite.name}.md": self._suite_page(suite) for suite in suites}
        if self.page_each:
            selected = {
                name: frozenset(
                    c.id for c in select_controls([name], self.profiles, self.catalogue)
                )
                for name in self.profiles
            }
            found |= {
                f"{control.suite}/{control.id}.md": self._control_page(control, selected)
                for control in self.catalogue
            }
        return {path: f"{_MADE}\n{text.strip()}\n" for path, text in found.items()}

    def _link(self, control: Control, *, up: str = "") -> str:
        place = f"/{control.id}.md" if self.page_each else f".md#{control.id.lower()}"
        return f"[{control.id}]({up}{control.suite}{place})"

    def _control_page(self, control: Control, selected: Mapping[str, frozenset[str]]) -> str:
        own = control.judged_as or control.id
        chosen = [name for name, ids in selected.items() if own in ids]
        judged = how_judged(control)
        if control.judged_as is not None:
            other = self.catalogue.control(control.judged_as)
            judged = [f"Judged as {self._link(other, up='../')}, which means the same."]
        parts = [
            f"# {control.id}: {control.title}",
            f"Severity **{control.severity.name}**, suite [{control.suite}](../{control.suite}.md).",
            f"## Why\n\n{control.threat}",
            "## How it is judged\n\n" + "\n".join(f"- {_escaped(line)}" for line in judged),
            "## Remedy\n\n" + "\n\n".join(_remedy(remedy) for remedy in control.remedies),
        ]
        if control.note:
            parts.append(f"## Note\n\n{_escaped(control.note)}")
        if lines := reference_lines(control):
            parts.append("## References\n\n" + "\n".join(f"- {line}" for line in lines))
        parts.append(f"Profiles: {', '.join(chosen) or 'none that is bundled'}.")
        return "\n\n".join(parts)

    def _suite_page(self, suite: Suite) -> str:
        rows = [
            (self._named(c), c.severity.name, _judged(c), c.title, c.threat) for c in suite.controls
        ]
        table = _table(("control", "severity", "judged on", "what", "why"), rows)
        more = f"`pytest-nixos controls {suite.controls[0].id}` tells how one is judged and what mends it."
        return f"# {suite.title}\n\n{suite.description}\n\n{more}\n\n{table}\n\n[All suites](README.md)"

    def _named(self, control: Control) -> str:
        # A row is a place to link to.
        anchor = f'<a id="{control.id.lower()}"></a>'
        return f"{anchor}{self._link(control) if self.page_each else control.id}"

    def _by_standard(self) -> str:
        parts = ["# Controls by standard"]
        for key, standard in STANDARDS.items():
            found: dict[str, list[Control]] = {}
            for control in self.catalogue:
                for clause in control.references.get(key, ()):
                    found.setdefault(clause, []).append(control)
            if not found:
                continue
            rows = [
                (clause, ", ".join(self._link(c) for c in found[clause]))
                for clause in sorted(found)
            ]
            parts += [f"## {standard.title}", _table((standard.clause, "controls"), rows)]
        return "\n\n".join(parts)

    def _coverage_page(self, standard: str) -> str:
        found = coverage(standard, self.catalogue)
        known = STANDARDS[standard]
        rows = [(c.name, c.detail, self._covered_by(c)) for c in found.clauses]
        counts = f"{found.judged} of {len(found.clauses)}"
        summary = f"{counts} are judged by at least one control."
        if standard in frameworks():
            summary = (
                f"Controls give evidence for {counts}. **None fulfils one**: a clause is about an organisation, a "
                f"verdict about a host.\n\nText: {found.source.replace(chr(10), ' ')}\n\n"
                f"`--nixos-profile {standard}` judges the controls below; the HTML report counts the clauses of each host."
            )
        table = _table((known.clause, "detail", "controls, or why there is none"), rows)
        return f"# Coverage: {known.title}\n\n{summary}\n\n{table}"

    def _covered_by(self, clause: Clause) -> str:
        return ", ".join(self._link(c) for c in clause.controls) or f"none: {clause.reason}"


def pages(
    catalogue: Catalogue, profiles: Mapping[str, Profile], *, page_each: bool = False
) -> Mapping[str, str]:
    """Return every page by its path below the directory of the pages.

    :param page_each: whether each control has a page of its own, as in the built site.
    """
    return _Writer(catalogue=catalogue, profiles=profiles, page_each=page_each).pages()


def _judged(control: Control) -> str:
    """Say whose word a verdict rests on, and whether a Python check gives it."""
    if control.judged_as is not None or control.manual is not None:
        return control.judged_by
    return f"{whose_word(control).value}{' (check)' if control.check else ''}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [_row(head), _row(["---"] * len(head)), *(_row(row) for row in rows)]
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    plain = (" ".join(cell.replace("|", "\\|").split()) for cell in cells)
    return f"| {' | '.join(plain)} |"


def _remedy(remedy: Remedy) -> str:
    scope = remedy_scope(remedy)
    head = f"{scope[0].upper()}{scope[1:]}:\n\n" if scope else ""
    return f"{head}```nix\n{remedy.text}\n```"


def _escaped(text: str) -> str:
    return text.replace("<", "&lt;").replace("*", r"\*")


def _index(catalogue: Catalogue, profiles: Mapping[str, Profile]) -> str:
    suites = [
        (f"[{s.name}]({s.name}.md)", s.title, str(len(s.controls)))
        for s in catalogue.suites.values()
    ]
    chosen = [
        (
            name,
            profile.title,
            str(len(select_controls([name], profiles, catalogue))),
            profile.description,
        )
        for name, profile in profiles.items()
    ]
    judged = {by: sum(c.judged_by == by for c in catalogue) for by in _JUDGED_BY}
    return "\n\n".join(
        (
            "# Controls",
            f"{len(catalogue)} controls in {len(catalogue.suites)} suites. "
            "[How they are written](format.md), [by standard](by-standard.md), coverage: "
            + ", ".join(f"[{key}](coverage-{key}.md)" for key in COVERED)
            + ".",
            _table(("suite", "what", "controls"), suites),
            "## Profiles",
            _table(("profile", "title", "controls", "what"), chosen),
            "## How they are judged",
            _table(("judged", "controls"), [(_JUDGED_BY[by], str(n)) for by, n in judged.items()]),
        )
    )


_JUDGED_BY = {
    "machine": "by data, on the machine or the flake",
    "both": "by data, on the machine and the evaluated config",
    "config": "by data, on the evaluated config",
    "check": "by a Python check",
    "alias": "as another control that means the same",
    "manual": "by hand, with the reason written down",
}


def _format_page() -> str:
    kinds = [
        (f"`{kind.name}`", kind.reads, kind.signature)
        for kind in sorted(KINDS.values(), key=lambda k: k.name)
    ]
    operators = ", ".join(f"`{operator.value}`" for operator in Operator)
    return "\n\n".join(
        (_FORMAT, _table(("kind", "reads", "parameters"), kinds), f"Operators: {operators}.")
    )


_FORMAT = """# How controls, profiles and waivers are written

TOML: it has comments, one obvious way to write a piece of Nix or a regular expression, and none of the surprises of YAML; Python's
standard library reads it, and Nix does with `builtins.fromTOML`. `pytest_nixos/standards/schema.json` says what is allowed.

## A suite of your own

A file `*.toml` in a directory that the ini setting `nixos_catalogue` or the hook `pytest_nixos_catalogue_dirs` names:

```toml
suite = "our-rules"
title = "Our rules"
description = "What our security team asks for."

[[control]]
id = "OUR-001"
title = "The company's time servers are used"
severity = "LOW"                       # CRITICAL, HIGH, MEDIUM, LOW, STYLE
threat = "Clocks that follow strangers make logs useless as evidence."
remedy = '''
networking.timeServers = [ "ntp.example.org" ];
'''
references = { project = ["security handbook 4.2"] }
applies-to = ["vm", "bare-metal"]      # default: everywhere, containers too
falsified-in = ["vm"]                  # there the evaluated config is judged
requires = [{ option = "services.timesyncd.enable", op = "eq", value = true, reason = "the host does not run timesyncd" }]
observed = { kind = "clock", fact = "timesync", select = ["servers"] }
declared = { option = "networking.timeServers" }
expect = { op = "subset-of", value = ["ntp.example.org"], parameter = "our-time-servers" }
```

A control is judged in exactly one way: by data (`observed`, `declared` or both, and `expect`), by a Python check with the marker
`nixos_control(ID)` (`check = true`), as another control (`judged-as = ID`), or by hand (`manual = "why no machine can"`). An id that a bundled control
has needs `overrides = true`. `option` paths are data: they are looked up in the evaluated config, and nothing in a catalogue is ever run on
the host machine.

- `select` follows keys into a value; `*` stands for every member.
- `declared.options = [a, b]` yields a mapping by path, of those that the release has; `declared.expect` replaces `expect` for the option's own shape;
  `declared.secret = true` keeps the value out of reports.
- `expect.quantifier`: `whole` (default), `each`, `any`. A quantified expectation about nothing is "not applicable", never a pass.
- `fields = { name = { op = ... } }` with `op = "fields"`; `alternatives = [...]` with `any-of` and `all-of`; `as-declared` compares with the option.
- `judged-on` beside `check = true` says whose word the check rests on: `machine` (the default: the guest's own, which root of the guest can make up), `config` (evaluated or
  built), `outside` (a look from outside the guest), `outside and machine`. Reports show it; a check may say it itself by `nixos_evidence.judge_on("outside")`.
- `since` and `until` name NixOS releases, `disa-category` is 1 to 3.
- `declared.fact` stands in place of options for a fact that several options say together.
- `blames = ["unit:auditd.service"]` names what is broken where the control is violated: it explains the findings that rest on it.

## Remedies

`remedy` is one text for every host. Where options differ by release or host, several `[[control.remedies]]` stand at the end of the control instead;
a finding gives the first whose `since`, `until` and `when` (conditions on the host's options, like `requires` without a reason) fit:

```toml
[[control.remedies]]
since = "25.11"
text = "security.auditd.settings.space_left = \\"25%\\";"

[[control.remedies]]
until = "25.05"
text = "environment.etc.\\"audit/auditd.conf\\".text = \\"space_left = 25%\\\\n\\";"
```

- `goes-into` says where a text is pasted that is no module text (`flake.nix`, `a shell`).
- `about = 'password hash'` gives a text to what was found that the pattern occurs in; what no such pattern occurs in gets the first of the other texts.
- `<word>` is filled from what was observed, and its statement is repeated for each value; `"<every word>"` puts all values into one list. `fill = { word = { pattern = '(\\S+)' } }` says from where:
  the first group of a pattern in what was found wrong (`reads = "reason"`: in the finding's sentence), or `{ option = "a.path" }`; `table = "sysctl-modules"` looks up what the pattern found.
  Without `fill`: `<unit>` (services that violate), `<release>`, `<supported release>`, `<host name>`, `<state version>`, `<flake>` (where the host's flake has an address).
- A statement whose values nobody knows is given as a comment, and one that the host declares already is not given.

## Profiles

`profiles/*.toml` in the same directory:

```toml
profile = "ours"
title = "Ours"
description = "The baseline and our own rules."
extends = ["baseline"]

[select]
suites = ["our-rules"]
controls = ["SSH-002"]
standards = ["anssi"]
references = { anssi = ["R9"] }

[exclude]
controls = ["FS-019"]

[parameters]
exposure-max = 2.5

[severities]
OUR-001 = "HIGH"
```

## Waivers

```toml
[[waiver]]
control = "SSH-002"
host = "legacy-*"
reason = "the vendor's robot logs in with a password until its update"
owner = "ops@example.org"
expires = 2027-03-31
```

A waiver that has expired, that names no known control, or whose control holds, makes the run fail and says so.

## Kinds of observation"""
