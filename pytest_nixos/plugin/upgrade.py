"""Machines of an upgrade test: each is booted as the old system, switched to the new one, and rolled back."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_nixos import observe
from pytest_nixos.errors import GenerationError
from pytest_nixos.generations import Generations, OtherFlake, SwitchOutcome
from pytest_nixos.machine.base import Machine
from pytest_nixos.nix.refs import HostRef
from pytest_nixos.observe.store import Observations
from pytest_nixos.plugin.generation_builder import NixBridge
from pytest_nixos.plugin.launch import Launch
from pytest_nixos.plugin.session import HostEntry, NixosSession
from pytest_nixos.report.upgrade import STAGES, packages_of

__all__ = ["Upgrades"]


@dataclass(slots=True, kw_only=True)
class _Life:
    """One machine on its way through the stages."""

    launch: Launch
    machine: Machine
    generations: Generations
    new: HostRef
    stage: str = "old"
    stack: ExitStack = field(default_factory=ExitStack)


class Upgrades:
    """The machines of a session's upgrade tests, by host; close it at the session's end."""

    def __init__(self, session: NixosSession) -> None:
        self._session = session
        self._lives: dict[str, _Life] = {}

    def machine(self, entry: HostEntry, launch: Callable[[str], Launch]) -> Machine:
        """Return the host's machine in the stage of `entry`, taking it there first.

        :param launch: makes the launch of a host by its key.
        :raises GenerationError: if the switch or the rollback fails, or the stage is over.
        """
        life = self._lives.get(entry.subject)
        if life is None:
            life = self._lives[entry.subject] = self._boot(entry, launch)
        if STAGES.index(entry.stage) < STAGES.index(life.stage):
            raise GenerationError(
                f"{entry.key}: the machine is in stage {life.stage!r} already",
                remedy="run the stages of a host in order: old, new, back",
            )
        while life.stage != entry.stage:
            self._advance(entry.subject, life)
        return life.machine

    def close(self, *, failed: bool) -> None:
        """Stop all machines."""
        lives, self._lives = self._lives, {}
        for life in lives.values():
            life.launch.keep(failed=failed)
            life.launch.__exit__(None, None, None)
            life.stack.close()

    def _boot(self, entry: HostEntry, launch: Callable[[str], Launch]) -> _Life:
        key = f"{entry.subject}@old"
        starting = launch(key)
        machine = starting.__enter__()
        stack = ExitStack()
        roots = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pytest-nixos-")))
        bridge = NixBridge(
            flakes=self._session.flakes, host=self._session.host_config(key), gc_roots=roots
        )
        life = _Life(
            launch=starting,
            machine=machine,
            generations=Generations(machine, bridge),
            new=self._session.entry(f"{entry.subject}@new").ref,
            stack=stack,
        )
        self._note(entry.subject, life)
        return life

    def _advance(self, subject: str, life: _Life) -> None:
        # What tests of the stage tried and took back must not be what the rollback goes to.
        life.generations.forget_newer()
        if life.stage == "old":
            new = OtherFlake(url=str(life.new.flake), attr=life.new.attr)
            outcome = life.generations.switch(new)
        else:
            outcome = life.generations.rollback()
            life.generations.forget_newer()
        _require(outcome, f"{subject}: {'upgrade' if life.stage == 'old' else 'rollback'}")
        life.stage = STAGES[STAGES.index(life.stage) + 1]
        self._session.entry(f"{subject}@{life.stage}").phases_s["switch"] = outcome.duration_s
        self._note(subject, life)

    def _note(self, subject: str, life: _Life) -> None:
        entry = self._session.entry(f"{subject}@{life.stage}")
        entry.state = _state(life, self._session)


def _state(life: _Life, session: NixosSession) -> dict[str, Any]:
    seen = Observations(life.machine).of(observe.sockets())
    toplevel = life.generations.current
    closure = session.flakes.nix.closure(Path(toplevel))
    return {
        "toplevel": toplevel,
        "release": life.machine.run("cat /run/current-system/nixos-version").stdout_text.strip(),
        "units": life.generations.unit_states(),
        "ports": sorted(
            f"{protocol.value}/{port}"
            for protocol in observe.Protocol
            for port in seen.reachable_ports(protocol)
        ),
        "packages": packages_of(str(path) for path in closure),
        "closure_bytes": session.flakes.nix.closure_bytes(Path(toplevel)),
    }


def _require(outcome: SwitchOutcome, what: str) -> None:
    if not outcome.switched:
        raise GenerationError(
            f"{what} to {outcome.toplevel} ended with {outcome.exit_status}: {outcome.meaning}",
            remedy="read what switch-to-configuration said; -v shows it",
            detail=outcome.output,
        )
