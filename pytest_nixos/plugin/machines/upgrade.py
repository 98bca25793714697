"""Machines of an upgrade test: each is booted as the old system, taken to the new one, and
rolled back.

A new system that refuses to be switched to (a switch inhibitor) is reached by boot and reboot.
Beside the upgraded machine the new system is booted afresh: what differs is what an upgrade leaves
undone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pytest_nixos import observe
from pytest_nixos.errors import GenerationError, NixosError
from pytest_nixos.generations import Generations, OtherFlake, SwitchOutcome, Verb
from pytest_nixos.generations.nix_bridge import NixBridge
from pytest_nixos.generations.stale import (
    RunningService,
    changed_etc,
    files_named,
    look_at_services,
    other_variables,
    really_changed,
    stale_services,
)
from pytest_nixos.generations.unit_states import unit_states
from pytest_nixos.generations.upgrade_outcome import UpgradeOutcome
from pytest_nixos.generations.upgrade_stage import Stage
from pytest_nixos.local.run_directory import run_directory
from pytest_nixos.machine.base import Machine
from pytest_nixos.machine.capabilities import BootsFrom
from pytest_nixos.nix.command.refs import HostRef
from pytest_nixos.observe.store import Observations
from pytest_nixos.plugin.machines.launch import Launch
from pytest_nixos.plugin.session import NixosSession
from pytest_nixos.report.comparing.upgrade import packages_of

__all__ = ["Upgrades"]


# Makes the launch of a host by its key, with a boot loader of its own where that is asked for.
MakeLaunch = Callable[[str, bool], Launch]


@dataclass(slots=True, kw_only=True)
class _Life:
    """One machine on its way through the stages; `stack` holds it and what was built for it."""

    launch: Launch
    machine: Machine
    generations: Generations
    new: HostRef
    stack: ExitStack
    stage: Stage = Stage.OLD
    outcome: UpgradeOutcome | None = None


class Upgrades:
    """The machines of a session's upgrade tests, by host; a context manager that stops them.

    :param launch: makes the launch of a host by its key, with a boot loader or without.
    :param tell: told in one line what is being done.
    """

    def __init__(
        self, session: NixosSession, launch: MakeLaunch, tell: Callable[[str], None]
    ) -> None:
        self._session = session
        self._launch = launch
        self._tell = tell
        self._lives: dict[str, _Life] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        with ExitStack() as stack:
            while self._lives:
                stack.push(self._lives.popitem()[1].stack)

    def machine(self, subject: str, stage: Stage) -> Machine:
        """Return a host's machine in a stage, taking it there first.

        :raises GenerationError: if the switch or the rollback fails, or the stage is over.
        """
        life = self._lives.get(subject)
        if life is None:
            life = self._lives[subject] = self._boot(subject, boot_loader=False)
        if stage.number < life.stage.number:
            raise GenerationError(
                f"{stage.of(subject)}: the machine is in stage {life.stage.value!r} already",
                remedy=f"run the stages of a host in order: {', '.join(Stage)}",
            )
        while self._lives[subject].stage is not stage:
            self._advance(subject)
        return self._lives[subject].machine

    def outcome(self, subject: str) -> UpgradeOutcome | None:
        """Return what was found out on the way to the new system, ``None`` before."""
        life = self._lives.get(subject)
        return None if life is None else life.outcome

    def keep(self, *, failed: bool) -> None:
        """Decide whether the run directories stay, as ``--nixos-keep`` says."""
        for life in self._lives.values():
            life.launch.keep(failed=failed)

    def _boot(self, subject: str, *, boot_loader: bool) -> _Life:
        key = Stage.OLD.of(subject)
        with ExitStack() as stack:
            launch = self._launch(key, boot_loader)
            roots = stack.enter_context(run_directory()).path
            machine = stack.enter_context(launch)
            bridge = NixBridge(
                flakes=self._session.flakes,
                host=machine.spec.host,
                gc_roots=roots,
            )
            life = _Life(
                launch=launch,
                machine=machine,
                generations=Generations(machine, bridge),
                new=self._session.entry(Stage.NEW.of(subject)).ref,
                stack=stack.pop_all(),
            )
            self._note(subject, life)
        return life

    def _advance(self, subject: str) -> None:
        life = self._lives[subject]
        # What tests of the stage tried and took back must not be what the rollback goes to.
        life.generations.forget_newer()
        if life.stage is Stage.OLD:
            outcome = self._upgrade(subject)
        else:
            outcome = life.generations.rollback()
            if outcome.refusal:
                outcome = self._by_boot(life, outcome, f"{subject}: rollback")
            life.generations.forget_newer()
            _require(outcome, f"{subject}: rollback")
        life = self._lives[subject]
        life.stage = Stage.NEW if life.stage is Stage.OLD else Stage.BACK
        self._session.entry(life.stage.of(subject)).phases_s["switch"] = outcome.duration_s
        self._note(subject, life)
        if life.stage is Stage.NEW and life.outcome is not None:
            self._compare(subject, life)

    def _upgrade(self, subject: str) -> SwitchOutcome:
        """Switch to the new system; where it refuses that, boot into it, which is the only other
        way.
        """
        life = self._lives[subject]
        what = f"{subject}: upgrade"
        new = OtherFlake(url=str(life.new.flake), attr=life.new.attr)
        old, services = life.generations.current, look_at_services(life.machine)
        outcome = life.generations.switch(new)
        if not outcome.refusal:
            _require(outcome, what)
            life.outcome = self._stale(life, old, services, outcome.toplevel)
            return outcome
        refused = outcome
        if life.machine.boots_from is BootsFrom.SCRIPT:
            self._tell(
                f"{subject}: starting again with a boot loader, to reboot into the new system"
            )
            life.stack.close()
            life = self._lives[subject] = self._boot(subject, boot_loader=True)
            outcome = life.generations.boot(new)
            _require(outcome, what)
            _reboot(life, outcome, what)
        else:
            outcome = self._by_boot(life, outcome, what)
        life.outcome = UpgradeOutcome(refusal=refused.refusal)
        return outcome

    def _by_boot(self, life: _Life, refused: SwitchOutcome, what: str) -> SwitchOutcome:
        self._tell(f"{what}: the pre-switch checks refuse a switch; going by boot and reboot")
        outcome = life.generations.activate(refused.toplevel, Verb.BOOT)
        _require(outcome, what)
        _reboot(life, outcome, what)
        return outcome

    def _stale(
        self, life: _Life, old: str, before: Mapping[str, RunningService], new: str
    ) -> UpgradeOutcome:
        after = look_at_services(life.machine)
        changed = changed_etc(life.machine, old, new)
        suspects = {path for service in after.values() for path in files_named(service, changed)}
        stale = stale_services(
            before=before,
            after=after,
            changed=really_changed(life.machine, old, new, suspects),
            closure={str(path) for path in self._session.flakes.nix.closure(Path(new))},
        )
        stayed = [
            n for n, s in after.items() if n in before and s.invocation == before[n].invocation
        ]
        left = sorted(name for name in stayed if after[name].left_by_design)
        return UpgradeOutcome(stale=stale, left=tuple(left))

    def _compare(self, subject: str, life: _Life) -> None:
        """Boot the new system afresh beside the upgraded one, and note what differs."""
        key = Stage.NEW.of(subject)
        entry = self._session.entry(key)
        outcome = life.outcome or UpgradeOutcome()
        if not outcome.refusal:
            self._tell(f"{key}: booting the new system afresh, to compare")
            outcome = self._with_fresh_boot(key, outcome, entry.state or {}, life.machine)
        life.outcome = outcome
        entry.state = {**(entry.state or {}), "way": dataclasses.asdict(outcome)}

    def _with_fresh_boot(
        self, key: str, outcome: UpgradeOutcome, upgraded: Mapping[str, Any], machine: Machine
    ) -> UpgradeOutcome:
        try:
            with self._launch(key, False) as fresh:
                units, ports = unit_states(fresh), _ports(fresh)
                variables = other_variables(look_at_services(machine), look_at_services(fresh))
        except NixosError as err:
            return dataclasses.replace(outcome, fresh_problem=err.message)
        stale = dict(outcome.stale)
        for name, reason in variables.items():
            stale[name] = (*stale.get(name, ()), reason)
        return dataclasses.replace(
            outcome,
            stale=stale,
            units=_differing(upgraded.get("units", {}), units),
            ports=_differing(
                dict.fromkeys(upgraded.get("ports", ()), "open"), dict.fromkeys(ports, "open")
            ),
        )

    def _note(self, subject: str, life: _Life) -> None:
        entry = self._session.entry(life.stage.of(subject))
        entry.state = _state(life, self._session)


def _state(life: _Life, session: NixosSession) -> dict[str, Any]:
    toplevel = life.generations.current
    closure = session.flakes.nix.closure(Path(toplevel))
    return {
        "toplevel": toplevel,
        "release": life.machine.run("cat /run/current-system/nixos-version").stdout_text.strip(),
        "units": unit_states(life.machine),
        "ports": _ports(life.machine),
        "packages": packages_of(str(path) for path in closure),
        "closure_bytes": session.flakes.nix.closure_bytes(Path(toplevel)),
    }


def _ports(machine: Machine) -> list[str]:
    seen = Observations(machine).of(observe.sockets())
    return sorted(
        f"{protocol.value}/{port}"
        for protocol in observe.Protocol
        for port in seen.reachable_ports(protocol)
    )


def _differing(
    ours: Mapping[str, str], theirs: Mapping[str, str]
) -> dict[str, tuple[str | None, str | None]]:
    pairs = {name: (ours.get(name), theirs.get(name)) for name in sorted({*ours, *theirs})}
    return {name: (one, other) for name, (one, other) in pairs.items() if one != other}


def _reboot(life: _Life, outcome: SwitchOutcome, what: str) -> None:
    life.generations.reboot()
    runs = life.generations.current
    if runs != outcome.toplevel:
        raise GenerationError(
            f"{what}: the reboot came into {runs}, not into {outcome.toplevel}",
            remedy="look at the boot loader's default: nixos-rebuild boot has to set it",
            detail=outcome.output,
        )


def _require(outcome: SwitchOutcome, what: str) -> None:
    if not outcome.switched:
        raise GenerationError(
            f"{what} to {outcome.toplevel} ended with {outcome.exit_status}: {outcome.meaning}",
            remedy="read what switch-to-configuration said; -v shows it",
            detail=outcome.output,
        )
