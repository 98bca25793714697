"""``pytest-nixos doctor``: everything that a run will need of this machine, before anything is
built.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from pytest_nixos import __version__
from pytest_nixos.backend_name import BackendName
from pytest_nixos.cli.command import CommandEnd, Commands
from pytest_nixos.cli.default_flake import default_flakes
from pytest_nixos.cli.needs import Need, State, Surroundings, needs
from pytest_nixos.errors import MachineError, SettingsError
from pytest_nixos.machine.vm.programs import find_qemu_img
from pytest_nixos.machine.vm.run_script import find_run_script, parse_run_script
from pytest_nixos.nix.command.argv import NixSettings
from pytest_nixos.nix.command.refs import HostSelection
from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.nix.homes import host_named

__all__ = ["add"]

_MARKS = {State.OK: "ok", State.LIMITED: "limited", State.LACKING: "LACKING"}


def add(commands: Commands) -> None:
    """Declare the command."""
    doctor = commands.add_parser(
        "doctor", help="tell what a run needs of this machine, and what to do where it is not there"
    )
    doctor.add_argument(
        "host", metavar="REF#HOST", nargs="?", help="a host to run; evaluated, not built"
    )
    doctor.add_argument("--backend", choices=("auto", "vm", "container"), default="auto")
    pair = {"action": "append", "nargs": 2, "default": [], "metavar": ("NAME", "REF")}
    doctor.add_argument("--override-input", **pair)  # type: ignore[arg-type]  # argparse's own keywords
    doctor.add_argument("--json", action="store_true", help="for programs")
    doctor.set_defaults(command=_doctor)


def _doctor(options: argparse.Namespace) -> Iterator[str]:
    found: list[Need] = []
    if not options.json:
        yield f"pytest-nixos {__version__}, Python {sys.version.split()[0]}"
    for need in needs(_surroundings(options)):
        found.append(need)
        if not options.json:
            yield from _lines(need)
    if options.json:
        yield json.dumps(_document(found), indent=2)
    lacking = [need.name for need in found if need.state is State.LACKING]
    if lacking:
        raise CommandEnd(
            1, "" if options.json else f"a run will fail for want of: {', '.join(lacking)}"
        )


def _surroundings(options: argparse.Namespace) -> Surroundings:
    around = Surroundings()
    if options.host is None:
        return (
            around
            if options.backend == "auto"
            else replace(around, backend=BackendName(options.backend))
        )
    selection = HostSelection.parse(options.host, cwd=Path.cwd())
    if selection.host is None:
        raise SettingsError(f"{options.host}: names no host", remedy="write REF#HOST")
    overrides = tuple((name, ref) for name, ref in options.override_input)
    flakes = default_flakes(NixSettings(override_inputs=overrides))
    host = host_named(flakes, selection)
    return _with_host(around, flakes.of(host.flake).evaluate(host.attr, backend=options.backend))


def _with_host(around: Surroundings, host: HostConfig) -> Surroundings:
    """Add what the host's VM brings along, if it is built already."""
    around = replace(around, backend=BackendName(host.backend))
    if around.backend is not BackendName.VM or not Path(host.output).exists():
        return around
    try:
        script = parse_run_script(find_run_script(Path(host.output), host.program))
    except MachineError:
        return around
    return replace(around, qemu=script.qemu_binary, qemu_img=find_qemu_img(script))


def _lines(need: Need) -> Iterator[str]:
    yield f"{_MARKS[need.state]:>8}  {need.name}: {need.told}"
    if need.remedy:
        yield f"{'':8}  -> {need.remedy}"


def _document(found: Sequence[Need]) -> dict[str, object]:
    return {
        "version": 1,
        "pytest_nixos": __version__,
        "lacking": [need.name for need in found if need.state is State.LACKING],
        "needs": [
            {"name": n.name, "state": n.state.value, "told": n.told, "remedy": n.remedy}
            for n in found
        ],
    }
