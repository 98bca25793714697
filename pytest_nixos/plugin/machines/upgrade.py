"""Machines of an upgrade test: each is booted as the old system, switched to the new one, and rolled back."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pytest_nixos import observe
from pytest_nixos.errors import GenerationError
from pytest_nixos.generations import Generations, OtherFlake, SwitchOutcome
from pytest_nixos.generations.nix_bridge import NixBridge
from pytest_nixos.generations.upgrade_stage import Stage
from pytest_nixos.machine.base import Machine
from pytest_nixos.nix.refs import HostRef
from pytest_nixos.observe.store import Observations
from pytest_nixos.plugin.machines.launch import Launch
from pytest_nixos.plugin.session import NixosSession
from pytest_nixos.report.upgrade import packages_of

__all__ = ["Upgrades"]


@dataclass(slots=True, kw_only=True)
class _Life:
    """One machine on its way through the stages."""

    launch: Launch
    machine: Machine
    generations: Generations
    new: HostRef
    stage: Stage = Stage.OLD


class Upgrades:
    """The machines of a session's upgrade tests, by host; a context manager that stops them.

    :param launch: makes the launch of a host by its key.
    """

    def __init__(self, session: NixosSession, launch: Callable[[str], Launch]) -> None:
        self._session = session
        self._launch = launch
        self._lives: dict[str, _Life] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._lives.clear()
        self._stack.close()

    def machine(self, subject: str, stage: Stage) -> Machine:
        """Return a host's machine in a stage, taking it there first.

        :raises GenerationError: if the switch or the rollback fails, or the stage is over.
        """
        life = self._lives.get(subject)
        if life is None:
            life = self._lives[subject] = self._boot(subject)
        if stage.number < life.stage.number:
            raise GenerationError(
                f"{stage.of(subject)}: the machine is in stage {life.stage.value!r} already",
                remedy=f"run the stages of a host in order: {', '.join(Stage)}",
            )
        while life.stage is not stage:
            self._advance(subject, life)
        return life.machine

    def keep(self, *, failed: bool) -> None:
        """Decide whether the run directories stay, as ``--nixos-keep`` says."""
        for life in self._lives.values():
            life.launch.keep(failed=failed)

    def _boot(self, subject: str) -> _Life:
        key = Stage.OLD.of(subject)
        with ExitStack() as stack:
            launch = self._launch(key)
            roots = stack.enter_context(tempfile.TemporaryDirectory(prefix="pytest-nixos-"))
            machine = stack.enter_context(launch)
            bridge = NixBridge(
                flakes=self._session.flakes,
                host=self._session.host_config(key),
                gc_roots=Path(roots),
            )
            life = _Life(
                launch=launch,
                machine=machine,
                generations=Generations(machine, bridge),
                new=self._session.entry(Stage.NEW.of(subject)).ref,
            )
            self._note(subject, life)
            self._stack.push(stack.pop_all())
        return life

    def _advance(self, subject: str, life: _Life) -> None:
        # What tests of the stage tried and took back must not be what the rollback goes to.
        life.generations.forget_newer()
        upgrades = life.stage is Stage.OLD
        if upgrades:
            new = OtherFlake(url=str(life.new.flake), attr=life.new.attr)
            outcome = life.generations.switch(new)
        else:
            outcome = life.generations.rollback()
            life.generations.forget_newer()
        _require(outcome, f"{subject}: {'upgrade' if upgrades else 'rollback'}")
        life.stage = Stage.NEW if upgrades else Stage.BACK
        self._session.entry(life.stage.of(subject)).phases_s["switch"] = outcome.duration_s
        self._note(subject, life)

    def _note(self, subject: str, life: _Life) -> None:
        entry = self._session.entry(life.stage.of(subject))
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
