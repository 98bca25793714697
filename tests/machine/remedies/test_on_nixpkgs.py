"""Every remedy is applied to a plain host of a real nixpkgs: it evaluates, and the finding that
it mends is gone.

``PYTEST_NIXOS_NIXPKGS`` names the tree. Nothing is built. What only a running machine shows is
tried in containers.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from pytest_nixos.backend_name import EVERYWHERE, BackendName
from pytest_nixos.findings import Outcome
from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.nix.expression import option_names
from pytest_nixos.observe.base import ProbeOutput
from pytest_nixos.observe.core_dump import core_dumps
from pytest_nixos.observe.filesystems.file import FileState
from pytest_nixos.standards.control.model import Control, Operator, Quantifier
from pytest_nixos.standards.judging.applicability import outside_releases, unmet_requirement
from pytest_nixos.standards.judging.judge import Verdict, judge
from pytest_nixos.standards.judging.statements import Statement, statements
from pytest_nixos.standards.load import option_paths
from tests.machine.remedies.samples import Text, as_module, texts
from tests.unit.standards.samples import host_config, observation, parse_pam
from tests.unit.standards.values import violating

Json = Any
NIXPKGS = os.environ.get("PYTEST_NIXOS_NIXPKGS", "")
HERE = Path(__file__).parent
SAFE = HERE.parents[2] / "pytest_nixos/nix/expressions/safe.nix"

pytestmark = [
    pytest.mark.skipif(not NIXPKGS, reason="PYTEST_NIXOS_NIXPKGS names no nixpkgs tree"),
    pytest.mark.skipif(not shutil.which("nix-instantiate"), reason="there is no Nix"),
]
#: Cases of one evaluation; the memory that Nix takes grows with it.
BATCH = 6
#: Remedies of one evaluation, and kernel parameters of one.
GROUP, KERNEL = 10, 60
#: Judged on values of one option each, so that they do not disturb each other and one evaluation
#: does for all. What changes the whole host, so that others do not fit beside it.
ALONE = frozenset({"LXC-005", "NET-007"})
#: Judged by what runs on this release: the option that the control reads is of a later one.
ON_THE_MACHINE = frozenset({"SSH-010"})
TOGETHER = re.compile(r"(SYSCTL|CMDLINE)-\d+$")
FILES = (
    "audit/auditd.conf", "security/pwquality.conf", "default/useradd", "issue", "systemd/coredump.conf",
    "systemd/journald.conf", "systemd/timesyncd.conf",
)  # fmt: skip
#: Controls that the evaluated config proves although they look at a machine: what they read is
#: written by the config.
NEEDS_A_MACHINE = frozenset(
    {
        "unit-property",
        "unit-exposure",
        "http",
        "mount",
        "account",
        "scan",
        "podman",
        "generation",
        "storage",
        "firewall",
        "resolver",
        "search-path",
        "sudo",
        "doas",
        "polkit",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What came of one control: before and after its remedy."""

    control: Control
    before: Verdict | None
    after: Verdict | None


def evaluate(request: Mapping[str, Json], folder: Path) -> Mapping[str, Json]:
    path = folder / "request.json"
    path.write_text(json.dumps(request))
    arguments = {"nixpkgs": NIXPKGS, "request": str(path), "safe": str(SAFE)}
    words = [word for key, value in arguments.items() for word in ("--arg", key, value)]
    answer = subprocess.run(
        ["nix-instantiate", "--eval", "--strict", "--json", *words, str(HERE / "prove.nix")],
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode:
        raise EvaluationError(answer.stderr[-3000:])
    found: dict[str, Json] = json.loads(answer.stdout)
    return found


class EvaluationError(Exception):
    """Nix ended with an error that it lets nobody catch."""


def answers(base: Mapping[str, Json], cases: Sequence[Json], folder: Path) -> list[Json]:
    """Evaluate cases together, and one by one where an error of one takes the others with it."""
    sent = [{k: v for k, v in case.items() if k != "paths"} for case in cases]
    try:
        return list(evaluate({**base, "cases": sent}, folder)["cases"])
    except EvaluationError as err:
        if len(cases) == 1:
            said = [line for line in str(err).splitlines() if "error:" in line]
            return [{"problem": said[-1] if said else str(err), "seen": None}]
    return [answer for case in cases for answer in answers(base, [case], folder)]


def violations(controls: Sequence[Control]) -> list[dict[str, Json]]:
    """Return a bad value for each plain option that a control judges."""
    found: dict[str, dict[str, Json]] = {}
    for control in controls:
        spec = control.declared
        if spec is None or spec.fact is not None or len(spec.options) != 1 or "*" in spec.select:
            continue
        expect = spec.expect or control.expect
        assert expect is not None
        simple = (
            Operator.EQ, Operator.IN, Operator.GE, Operator.LE, Operator.BETWEEN, Operator.ANY_OF,
        )  # fmt: skip
        if expect.op not in simple or expect.quantifier is not Quantifier.WHOLE:
            continue
        if expect.op is Operator.ANY_OF:
            # "Equal to 0, or not there": what is there and wrong.
            expect = next(e for e in expect.alternatives if e.op is not Operator.ABSENT)
        bad = violating(expect) if expect.op in simple else None
        path = [*option_names(spec.options[0]), *spec.select]
        if path[:3] != ["boot", "kernel", "sysctl"] and not isinstance(bad, bool):
            continue
        found["/".join(path)] = {"path": path, "value": bad}
    for kept in UNVIOLATED:
        found.pop(kept, None)
    return list(found.values())


#: What the plain host needs as it is, and what it sets itself.
UNVIOLATED = (
    "networking/firewall/enable", "virtualisation/oci-containers/backend", "boot/lanzaboote/enable",
    "services/chromadb/host",
)  # fmt: skip


def host_of(view: Mapping[str, Json], paths: Sequence[str], release: str) -> HostConfig:
    options = {
        p: a["value"]
        for p, a in zip(paths, view["options"], strict=True)
        if a["state"] == "present"
    }
    sysctls = options.get("boot.kernel.sysctl") or {}
    return msgspec.structs.replace(
        host_config(options=options),
        release=release,
        sysctls={k: str(v) for k, v in sysctls.items()},
    )


def seen_in(view: Mapping[str, Json], control: Control) -> object | None:
    """Return what a machine with this config would show of a control, where the config writes
    it.
    """
    spec = control.observed
    if spec is None or spec.kind in NEEDS_A_MACHINE:
        return None
    p = spec.parameters
    match spec.kind:
        case "audit" if "status" not in p and not p.get("declared"):
            return {"status": {"enabled": "1"}, "rules": view["rules"]}
        case "file" if p["field"] in ("content", "settings", "match"):
            return _path_states(view, p)
        case "module":
            blocked = re.findall(r"^install (\S+) \S*/false$", view["modprobe"], re.MULTILINE)
            return {name: "blocked" if name in blocked else "loadable" for name in p["names"]}
        case "process" if p["field"] == "environment":
            return observation(
                "process", p, {name: view["ollama"].get(name) for name in p["variables"]}
            )
        case "nix":
            return {"settings": view["nix"]}
        case "pam":
            # The remedy is for the services that were found wrong: this one was.
            name = {"wheel": "su", "password-quality": "passwd"}.get(p["field"], "login")
            quality = view["etc"].get("security/pwquality.conf") or ""
            return parse_pam({name: view["pam"][name]}, quality)
        case "core-dumps":
            text = view["etc"].get("systemd/coredump.conf") or ""
            answer = ProbeOutput(stdout=f"=settings\n{text}\n=complete\n".encode(), exit_status=0)
            return core_dumps().parse(answer)
    return None


def _path_states(view: Mapping[str, Json], p: Mapping[str, Json]) -> object | None:
    contents = {f"/etc/{name}": text for name, text in view["etc"].items()}
    contents["/etc/login.defs"] = "".join(f"{k} {v}\n" for k, v in view["loginDefs"].items())
    wanted = p.get("paths") or [p["path"]]
    if any(path not in contents for path in wanted):
        return None

    def state(path: str) -> tuple[FileState, ...]:
        text = contents[path]
        if text is None:
            return ()
        return (
            FileState(
                path=path, type="regular file", mode="444", owner="root", group="root", content=text
            ),
        )

    return {path: state(path) for path in wanted}


def verdict(
    control: Control, view: Mapping[str, Json], paths: Sequence[str], release: str
) -> Verdict | None:
    host = host_of(view, paths, release)
    anywhere = replace(control, applies_to=EVERYWHERE, falsified_in=frozenset())
    seen = seen_in(view, control)
    if seen is not None and control.observed is not None:
        return judge(
            replace(anywhere, declared=None), host, {control.observed.kind: seen}, BackendName.VM
        )
    if control.declared is None or (control.expect and control.expect.op is Operator.AS_DECLARED):
        return None
    return judge(replace(anywhere, observed=None), host, {}, BackendName.VM)


@pytest.fixture(scope="module")
def applied(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Json]:
    """Every remedy that this release has, each alone on the plain host; kernel parameters in one
    go.
    """
    folder = tmp_path_factory.mktemp("remedies")
    paths = option_paths(text.control for text in texts())
    base: dict[str, Json] = {"options": [option_names(p) for p in paths], "files": list(FILES)}
    base["violations"] = violations([t.control for t in texts() if t.control.is_data])
    first = evaluate({**base, "cases": []}, folder)
    release = first["release"]
    host = host_of(first["plain"], paths, release)
    chosen = [t for t in texts() if t.is_module and _fits(t, host)]
    results = _results(grouped(chosen), base, folder)
    # What does not go together is tried alone, so that the one at fault is named.
    failed = [t for t in chosen if results[t.name]["problem"]]
    results |= _results([[t] for t in failed], base, folder)
    return {
        "release": release, "plain": first["plain"], "paths": paths, "chosen": chosen, "results": results,
    }  # fmt: skip


def _results(
    groups: Sequence[Sequence[Text]], base: Mapping[str, Json], folder: Path
) -> dict[str, Json]:
    found: dict[str, Json] = {}
    for start in range(0, len(groups), BATCH):
        members = groups[start : start + BATCH]
        batch = [_case(group, folder) for group in members]
        for group, case, answer in zip(members, batch, answers(base, batch, folder), strict=True):
            found |= {t.name: {**answer, "paths": case["paths"]} for t in group}
    return found


def grouped(chosen: Sequence[Text]) -> list[list[Text]]:
    """Pack remedies that say nothing of one another's options into few evaluations: each takes
    seconds.
    """
    groups: list[tuple[list[Text], set[str]]] = []
    for text in chosen:
        size = KERNEL if TOGETHER.match(text.control.id) else GROUP
        own = {
            _subject(text, part) for part in statements(text.text) if part.assignment is not None
        }
        own.add(text.control.id)
        for members, said in groups:
            if {text.control.id, members[0].control.id} & ALONE:
                continue
            if len(members) < size and not own & said:
                members.append(text)
                said.update(own)
                break
        else:
            groups.append(([text], own))
    return [members for members, _ in groups]


def _subject(text: Text, part: Statement) -> str:
    """Return what an assignment is about: an option of a suite of options, or one service of
    systemd.
    """
    path = part.assignment[0] if part.assignment else ""
    if TOGETHER.match(text.control.id):
        return path if path.startswith("boot.kernel.sysctl") else text.control.id
    return ".".join(option_names(path)[:4])


def _conditions(control: Control) -> set[str]:
    return {o for remedy in control.remedies for c in remedy.when for o in c.declared.options}


def _fits(text: Text, host: HostConfig) -> bool:
    remedy = text.remedy
    control = text.control
    return all(
        outside_releases(since, until, host.release) is None
        for since, until in ((remedy.since, remedy.until), (control.since, control.until))
    )


def _case(members: Sequence[Text], folder: Path) -> dict[str, Json]:
    files = [str(as_module(t.text, folder / f"{t.name}.nix")) for t in members]
    paths = sorted(
        {o for t in members for o in (*option_paths([t.control]), *_conditions(t.control))}
    )
    name = members[0].name
    return {
        "name": name,
        "files": files,
        "options": [option_names(p) for p in paths],
        "paths": paths,
    }


def test_every_remedy_evaluates(applied: Mapping[str, Json]) -> None:
    problems = {name: r["problem"] for name, r in applied["results"].items() if r["problem"]}
    assert problems == {}
    assert len(applied["chosen"]) > 300


def proofs(applied: Mapping[str, Json]) -> list[Proof]:
    found = []
    release = applied["release"]
    for text in applied["chosen"]:
        control = text.control
        if control.id in ON_THE_MACHINE or not control.is_data:
            continue
        if text.number != _first(applied, control):
            continue
        case = applied["results"][text.name]
        if case["problem"]:
            continue
        before = verdict(control, applied["plain"], applied["paths"], release)
        after = verdict(control, case["seen"], case["paths"], release)
        found.append(Proof(control=control, before=before, after=after))
    return found


def _first(applied: Mapping[str, Json], control: Control) -> int:
    host = host_of(applied["plain"], applied["paths"], applied["release"])
    for number, remedy in enumerate(control.remedies):
        text = Text(control=control, number=number, remedy=remedy, text="")
        if _fits(text, host) and all(unmet_requirement(c, host) is None for c in remedy.when):
            return number
    return -1


def test_every_remedy_mends_its_finding(
    applied: Mapping[str, Json], record_property: Callable[[str, object], None]
) -> None:
    found = proofs(applied)
    wrong = {
        p.control.id: f"{p.after.outcome.value}: {p.after.reason}"
        for p in found
        if p.after is not None and p.after.outcome is Outcome.FAILED
    }
    assert wrong == {}
    mended = {p.control.id for p in found if _is_mended(p)}
    held = {p.control.id for p in found if p.after and p.after.outcome is Outcome.PASSED}
    record_property("mended", len(mended))
    record_property("held", len(held))
    record_property("held before", " ".join(sorted(held - mended)))
    assert len(mended) >= MENDED


#: Controls whose finding was there before the remedy and gone after it, on 24.05.
MENDED = 150


def _is_mended(proof: Proof) -> bool:
    return (
        proof.before is not None
        and proof.after is not None
        and proof.before.outcome is Outcome.FAILED
        and proof.after.outcome is Outcome.PASSED
    )
