"""Development shells: they can be entered, hold what they declare, take nothing from the host,
and leave no mess.

Every shell of this machine's system is entered by ``nix develop`` in a copy of the flake, with a
home directory of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import pytest

from pytest_nixos import Evidence, Flake, NixosError, not_applicable

if TYPE_CHECKING:
    from pytest_nixos import DevShell, ShellVisit

_SHOWN = 20
_LISTS = (
    "PATH",
    "DIRS",
)  # endings of variables that hold lists, to which a shell's own parts are added
# Nix keeps these as the user has them, and stdenv's own.
_NOT_SET = ("NIX_", "HOME", "TERM", "SHELL", "TMP", "TEMP", "USER", "LOGNAME", "DISPLAY", "PWD")

Enter = Callable[[str], "ShellVisit"]


@pytest.fixture(scope="module")
def names(nixos_flake: Flake) -> tuple[str, ...]:
    """Names of the shells for this machine's system."""
    found = nixos_flake.dev_shell_names()
    if not any(found.values()):
        not_applicable("the flake has no development shells")
    if not found.get(nixos_flake.system):
        not_applicable(f"the flake has no development shell for {nixos_flake.system}")
    return found[nixos_flake.system]


@pytest.fixture(scope="module")
def enter(nixos_flake: Flake, nixos_progress: Callable[[str], None]) -> Enter:
    """Enter a shell as people do, once."""

    def enter_once(name: str) -> ShellVisit:
        nixos_progress(f"entering the development shell {name}")
        return nixos_flake.enter(nixos_flake.system, name)

    return enter_once


@pytest.fixture(scope="module")
def entered(names: tuple[str, ...], enter: Enter) -> Mapping[str, ShellVisit]:
    """Return the shells that can be entered; the others are DEV-001's findings."""
    found = {name: visit for name in names if (visit := enter(name)).entered}
    if not found:
        not_applicable("no development shell can be entered; see DEV-001")
    return found


@pytest.mark.nixos_control("DEV-001")
def test_every_shell_can_be_entered(
    names: tuple[str, ...], enter: Enter, nixos_evidence: Evidence
) -> None:
    nixos_evidence.expect(dict.fromkeys(names, "entered"))
    visits = {name: enter(name) for name in names}
    nixos_evidence.observe(
        {
            name: f"entered after {visit.duration_s:.1f} s" if visit.entered else visit.failure
            for name, visit in visits.items()
        }
    )
    broken = [name for name, visit in visits.items() if not visit.entered]
    assert not broken, f"cannot be entered: {', '.join(broken)}"


@pytest.mark.nixos_control("DEV-002")
def test_declared_tools_are_found(
    nixos_flake: Flake, entered: Mapping[str, ShellVisit], nixos_evidence: Evidence
) -> None:
    expected = {
        name: _programs(nixos_flake.dev_shell(nixos_flake.system, name)) for name in entered
    }
    if not any(expected.values()):
        not_applicable("no development shell declares a package with programs")
    nixos_evidence.expect({name: sorted(programs) for name, programs in expected.items()})
    wrong = {
        name: found
        for name, programs in expected.items()
        if (
            found := {
                program: where or "not found"
                for program, folders in programs.items()
                if not _comes_from(where := entered[name].find(program), folders)
            }
        )
    }
    nixos_evidence.observe({"not the declared program": wrong})
    assert not wrong, f"declared tools that the shell does not run: {wrong}"


@pytest.mark.nixos_control("DEV-003")
def test_nothing_comes_from_the_host(
    nixos_flake: Flake,
    entered: Mapping[str, ShellVisit],
    nixos_evidence: Evidence,
    nixos_progress: Callable[[str], None],
) -> None:
    nixos_evidence.expect({"outside of the store on PATH": [], "programs that are missing": []})
    found: dict[str, dict[str, object]] = {}
    for name in entered:
        nixos_progress(f"entering the development shell {name} without the host's environment")
        visit = nixos_flake.enter(nixos_flake.system, name, pure=True)
        missing = [line for line in visit.said.splitlines() if line.endswith("command not found")]
        problems: dict[str, object] = {
            "cannot be entered": visit.failure,
            "outside of the store on PATH": list(visit.foreign_path),
            "programs that are missing": missing,
        }
        if any(problems.values()):
            found[name] = {key: value for key, value in problems.items() if value}
    nixos_evidence.observe(found or "nothing from the host")
    assert not found, f"with --ignore-environment: {found}"


@pytest.mark.nixos_control("DEV-004")
def test_entering_leaves_nothing_behind(
    entered: Mapping[str, ShellVisit], nixos_evidence: Evidence
) -> None:
    nothing: dict[str, list[str]] = {"project": [], "home": [], "processes": []}
    nixos_evidence.expect(nothing)
    left = {}
    for name, visit in entered.items():
        traces = {
            "project": list(visit.project[:_SHOWN]),
            "home": list(visit.home[:_SHOWN]),
            "processes": list(visit.left_running[:_SHOWN]),
        }
        if any(traces.values()):
            left[name] = traces
            nixos_evidence.attach(f"what {name} said", visit.said or "nothing")
    nixos_evidence.observe(left or nothing)
    assert not left, f"left behind: {left}"


@pytest.mark.nixos_control("DEV-005")
def test_declared_variables_are_set(
    nixos_flake: Flake, entered: Mapping[str, ShellVisit], nixos_evidence: Evidence
) -> None:
    expected = {
        name: variables
        for name in entered
        if (variables := _variables(nixos_flake.dev_shell(nixos_flake.system, name)))
    }
    if not expected:
        not_applicable("no development shell declares an environment variable")
    nixos_evidence.expect(expected)
    wrong = {
        name: found
        for name, variables in expected.items()
        if (
            found := {
                key: entered[name].environment.get(key)
                for key, value in variables.items()
                if not _is_set(key, value, entered[name].environment.get(key))
            }
        )
    }
    nixos_evidence.observe({"different": wrong})
    assert not wrong, f"not as declared: {wrong}"


@pytest.mark.nixos_control("DEV-006")
def test_direnv_keeps_the_shell(nixos_flake: Flake, nixos_evidence: Evidence) -> None:
    envrc = nixos_flake.source / ".envrc"
    if not envrc.is_file():
        not_applicable("the flake has no .envrc, so nobody enters its shell by direnv")
    nixos_evidence.attach(".envrc", envrc.read_text(errors="replace"))
    if not nixos_flake.has_direnv:
        not_applicable("direnv is not installed on this machine, so .envrc cannot be tried")
    visit = nixos_flake.enter_with_direnv()
    nixos_evidence.attach("direnv", visit.said)
    nixos_evidence.expect("a root of the garbage collector below the project")
    nixos_evidence.observe(dict(visit.roots) or "none")
    assert visit.succeeded, "direnv cannot load .envrc"
    assert visit.roots, "what .envrc loads is collected with the next garbage"


@pytest.mark.nixos_control("DEV-008")
def test_every_system_has_the_same_shells(nixos_flake: Flake, nixos_evidence: Evidence) -> None:
    found = nixos_flake.dev_shell_names()
    every = sorted({name for names in found.values() for name in names})
    if not every:
        not_applicable("the flake has no development shells")
    systems = sorted({*found, *nixos_flake.systems()})
    nixos_evidence.expect(dict.fromkeys(systems, every))
    nixos_evidence.observe({system: list(found.get(system, ())) for system in systems})
    missing = {
        system: lacking
        for system in systems
        if (lacking := [name for name in every if name not in found.get(system, ())])
    }
    assert not missing, f"shells that a system lacks: {missing}"
    broken = {}
    for system in systems:
        for name in found[system]:
            try:
                nixos_flake.dev_shell(system, name)
            except NixosError as err:
                broken[f"{system}.{name}"] = err.message
    nixos_evidence.observe(broken or {system: list(found[system]) for system in systems})
    assert not broken, f"does not evaluate: {', '.join(broken)}"


def _programs(shell: DevShell) -> dict[str, list[str]]:
    """Return the programs that the shell's packages bring, and the packages that bring each."""
    found: dict[str, list[str]] = {}
    for tool in shell.tools:
        programs = tool.programs()
        main = [tool.main_program] if tool.main_program in programs else programs
        for program in main:
            if program is not None and not program.startswith("."):
                found.setdefault(program, []).extend(tool.outputs)
    return found


def _comes_from(where: str | None, folders: list[str]) -> bool:
    return where is not None and any(where.startswith(f"{folder}/") for folder in folders)


def _variables(shell: DevShell) -> dict[str, str]:
    return {key: value for key, value in shell.variables.items() if not key.startswith(_NOT_SET)}


def _is_set(key: str, declared: str, observed: str | None) -> bool:
    if observed is None:
        return False
    if key.endswith(_LISTS):
        return set(declared.split(":")) <= set(observed.split(":"))
    return observed == declared
