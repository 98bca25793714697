"""One test session: its settings, the evaluated hosts and the selected controls."""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from pytest_nixos.backend_name import BackendName
from pytest_nixos.errors import EvalError, MachineError, NixosError, SettingsError
from pytest_nixos.generations.upgrade_stage import Stage
from pytest_nixos.local.pace import Pace, Pacer
from pytest_nixos.nix.building.platforms import Foreign, foreign_system
from pytest_nixos.nix.command.refs import HomesRef, HostRef
from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.nix.failure.evaluation import ImageRefused, none_evaluates
from pytest_nixos.nix.flake import Flake
from pytest_nixos.nix.flakes import Flakes
from pytest_nixos.nix.schedule import Evaluated, Question, evaluate_hosts, recalled
from pytest_nixos.observe.store import Observations
from pytest_nixos.plugin.judging.first_look import FirstLook
from pytest_nixos.plugin.machines.changed import ChangedMachines
from pytest_nixos.plugin.settings.declared_options import HOST_IN_ADDRESS, SnapshotUse
from pytest_nixos.plugin.settings.options import Settings
from pytest_nixos.plugin.watch.notes import Before
from pytest_nixos.standards.control.model import Control
from pytest_nixos.standards.load import Catalogue
from pytest_nixos.standards.waivers import Waiver, declared_profiles, declared_waivers
from pytest_nixos.test_secrets.given import check_declared

if TYPE_CHECKING:
    from pytest_nixos.observe.network.internet import NeedsOfMachine
    from pytest_nixos.recording.recording import Recording
    from pytest_nixos.test_secrets.archive import TestSecrets

__all__ = ["HostEntry", "NixosSession"]

Say = Callable[[str], None]
# A machine that has become this much slower is told once more.
_TOLD_AGAIN = 1.5


@dataclass(slots=True, kw_only=True)
class HostEntry:
    """One host of the run: its config, or why there is none; and why its machine failed, once it
    did.

    :param boot_loader: the same host as a VM with a boot loader, once a test needed it.
    :param rebooting_failure: why the machine that is made for reboots failed, once it did; the
        host's other machines are judged all the same.
    :param secrets: what its machines get for the host's secrets, once one was started.
    :param subject: of an upgrade test, the host's key; it has one entry for each stage.
    :param stage: of an upgrade test, ``None`` in any other run.
    :param state: what an upgrade test saw in that stage, JSON-able.
    :param circumstances: what this machine's speed and load were, and what its guest was told for
        it, JSON-able.
    :param screens: pictures of its screen: ``when`` each was taken, and ``png`` as base64.
    :param foreign: what it takes here, of a host for another system.
    :param elsewhere: the derivation that its evaluation on another machine gave, ``""`` for none.
    :param shown: whether a test has shown the failure in full; later ones name its cause only.
    """

    key: str
    ref: HostRef
    config: HostConfig | None = None
    boot_loader: HostConfig | None = None
    rebooting_failure: NixosError | None = None
    failure: NixosError | None = None
    foreign: Foreign | None = None
    elsewhere: str = ""
    secrets: TestSecrets | None = None
    shown: bool = False
    subject: str = ""
    stage: Stage | None = None
    state: dict[str, Any] | None = None
    phases_s: dict[str, float] = field(default_factory=dict)
    circumstances: dict[str, Any] = field(default_factory=dict)
    screens: list[dict[str, str]] = field(default_factory=list)

    @property
    def took_part(self) -> bool:
        """Whether it was evaluated; a host without a selected test is not."""
        return self.config is not None or self.failure is not None

    def take(self, evaluated: Evaluated) -> None:
        """Take over what an evaluation found."""
        self.config = evaluated.config
        if self.elsewhere and self.config and self.config.derivation != self.elsewhere:
            self.config = None
            self.fail(
                EvalError(
                    f"{self.ref}: is another host on the machine of this worker than where the run began",
                    remedy="give both the same: a flake ref with a revision, or equal files at the same path",
                )
            )
        self.phases_s["evaluate"] = evaluated.duration_s
        if evaluated.failure is not None:
            self.fail(evaluated.failure)

    def forget_machine(self) -> None:
        """Forget what became of the machines: others are started."""
        self.rebooting_failure = None
        if self.config is not None:
            self.failure, self.shown = None, False

    def fail(self, error: NixosError) -> None:
        """Remember the first cause; later ones are its consequences."""
        self.failure = self.failure or error


class NixosSession:
    """State of one run, kept in ``config.stash``.

    It crosses to xdist's workers as it is; `started_at_s` (seconds since 1970) stays that of the
    first process.

    :param question: what is asked about a host when it is evaluated.
    :param controls: selected by the profiles, parameters and severities applied.

    :param recording: that is replayed, ``None`` where hosts are evaluated.

    ``before`` is what the run before this one left, in a watched session (``--nixos-watch``).
    ``pacer`` tells how slow this machine is, ``told_pace`` the factor that people have been told.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        flakes: Flakes,
        question: Question,
        catalogue: Catalogue,
        controls: Sequence[Control],
        waivers: Sequence[Waiver],
        entries: Sequence[HostEntry],
        recording: Recording | None = None,
    ) -> None:
        self.started_at_s = time.time()
        self.changed_machines = ChangedMachines()
        self.looks: dict[str, FirstLook] = {}
        self.settings = settings
        self.flakes = flakes
        self.recording = recording
        self.before: Before | None = None
        self._question = question
        self.catalogue = catalogue
        self.controls = tuple(controls)
        self.waivers = tuple(waivers)
        self._by_id = {control.id: control for control in controls}
        self._entries = {entry.key: entry for entry in entries}
        self._to_build: tuple[str, ...] = ()
        self.planned: tuple[str, ...] = ()
        self.pacer = Pacer()
        self.told_pace = 1.0

    @property
    def entries(self) -> tuple[HostEntry, ...]:
        """All hosts of the run, in the order in which they were asked for."""
        return tuple(self._entries.values())

    @property
    def tested(self) -> tuple[HostEntry, ...]:
        """Those hosts of the run that have selected tests."""
        return tuple(entry for entry in self.entries if entry.took_part)

    @property
    def host_keys(self) -> tuple[str, ...]:
        """Keys of all hosts, in the order in which they were asked for."""
        return tuple(self._entries)

    def entry(self, key: str) -> HostEntry:
        """Return one host of the run."""
        return self._entries[key]

    def flake(self, key: str) -> Flake:
        """Return the flake of a host."""
        return self.flakes.of(self._entries[key].ref.flake)

    def evaluate(self, keys: Collection[str], say: Say = lambda _: None) -> tuple[str, ...]:
        """Evaluate hosts that have tests, as many at once as there is room for; none of them twice.

        A host that does not evaluate keeps its failure, so that the others are still judged. A host
        that is made into a medium, and that nobody named, leaves the run.

        :param say: told what is being done, one line each.
        :return: keys of the hosts that left the run.
        :raises NixosError: if a flake cannot be read, lacks one of the hosts, or none of these
            hosts evaluates; or if waivers that a host declares are malformed.
        """
        if self.recording is not None:
            self._take_recorded(self.recording, keys, say)
            return ()
        self._refuse_one_address(keys)
        subjects = {self._entries[key].subject for key in keys} - {""}
        wanted = [e for e in self.entries if e.key in keys or e.subject in subjects]
        fresh = [entry for entry in wanted if entry.config is None and entry.failure is None]
        names = {entry.ref: entry.key for entry in reversed(fresh)}
        found = evaluate_hosts(
            self.flakes,
            [entry.ref for entry in fresh],
            self._question,
            say=lambda host: say(f"{names[host]}: evaluating {host}"),
        )
        for entry in fresh:
            entry.take(found[entry.ref])
        left = [e for e in wanted if isinstance(e.failure, ImageRefused)]
        for entry in left:
            assert isinstance(entry.failure, ImageRefused)
            say(f"{entry.key}: left out: it is {entry.failure.kind}, no machine that stays")
            say(f"{entry.key}: {entry.failure.remedy}")
            del self._entries[entry.key]
        failed = [e for e in fresh if e.failure is not None and e not in left]
        for entry in failed:
            say(f"{entry.key}: does not evaluate")
        if self.settings.secrets:
            check_declared(
                self.settings.secrets,
                {e.ref.attr: _secret_names(e.config) for e in self.entries if e.config is not None},
            )
        self._take_over_what_hosts_say(fresh, say)
        self._look_at_systems([entry for entry in fresh if entry.config is not None], say)
        if wanted and all(entry.failure is not None for entry in wanted):
            raise none_evaluates([e.failure for e in (*failed, *wanted) if e.failure is not None])
        return tuple(entry.key for entry in left)

    def recalled(self, key: str) -> HostConfig | None:
        """Return what a host declares, if an earlier run has kept it; nothing is evaluated.

        :raises FlakeError: if its flake cannot be read.
        """
        return recalled(self.flakes, self._entries[key].ref, self._question).config

    def apart(self, key: str, config: HostConfig, pace: Pace) -> NixosSession:
        """Return a session of one host alone, for what is done beside this one before it is known
        whether the host takes part; see :meth:`take_over`.

        :param pace: how slow this machine was measured to be.
        """
        entry = dataclasses.replace(
            self._entries[key], config=config, phases_s={}, circumstances={}
        )
        apart = copy.copy(self)
        vars(apart).update(_entries={key: entry}, _to_build=(), pacer=Pacer(measure=lambda: pace))
        return apart

    def take_over(self, apart: NixosSession, key: str) -> None:
        """Take over what a session apart has found out about a host."""
        entry, other = self._entries[key], apart.entry(key)
        entry.circumstances |= other.circumstances
        entry.phases_s |= other.phases_s
        entry.secrets = entry.secrets or other.secrets
        self.told_pace = max(self.told_pace, apart.told_pace)

    def pace_news(self, pace: Pace) -> str:
        """Return what to tell of a pace, ``""`` where people know: once, and again when this machine
        has become much slower.
        """
        if pace.factor < _TOLD_AGAIN * self.told_pace:
            return ""
        self.told_pace = pace.factor
        return pace.words

    def _refuse_one_address(self, keys: Collection[str]) -> None:
        """Refuse to judge several hosts by what one and the same live host says.

        :raises SettingsError: then.
        """
        address = self.settings.ssh_address
        if self.settings.backend is not BackendName.SSH or address is None or len(keys) < 2:
            return
        if HOST_IN_ADDRESS not in address:
            raise SettingsError(
                f"--nixos-ssh {address}: is one host, and this run tests {len(keys)}:"
                f" {', '.join(sorted(keys)[:5])}",
                remedy=f"put {HOST_IN_ADDRESS} for the host's name: --nixos-ssh 'root@{HOST_IN_ADDRESS}.example.org',"
                " or test one: --nixos-flake REF#HOST",
            )

    def _take_recorded(self, recording: Recording, keys: Collection[str], say: Say) -> None:
        """Take over what hosts declared when they were recorded.

        :raises SettingsError: if a file of the recording is damaged, or they ran otherwise than
            ``--nixos-backend`` says.
        """
        for key in keys:
            entry, started_s = self._entries[key], time.monotonic()
            if entry.took_part:
                continue
            host = recording.check(key)
            # Places in findings are those of the recorded run; these would be most of a host's memory.
            entry.config = None if host is None else msgspec.structs.replace(host, where={})
            backend = None if entry.config is None else recording.backend(key)
            if backend is not None and self.settings.backend not in (None, backend):
                raise SettingsError(
                    f"--nixos-backend {self.settings.backend.value}: {key} was recorded as {backend.value}",
                    remedy="leave the backend out of a replay",
                )
            entry.phases_s["read"] = time.monotonic() - started_s
            entry.circumstances["replayed"] = recording.told
            if entry.config is None:
                why = recording.manifest.hosts[key].failure
                entry.fail(EvalError(f"{key}: {why}", remedy="mend it, and record it again"))
            say(f"{key}: {recording.told}, is judged again")
            self._take_over_what_hosts_say([entry], say)

    @property
    def observed_controls(self) -> tuple[Control, ...]:
        """What machines are asked for: a recording holds what any profile may judge."""
        if self.settings.record is None:
            return self.controls
        return tuple(self._by_id.get(control.id, control) for control in self.catalogue)

    def _take_over_what_hosts_say(self, entries: Sequence[HostEntry], say: Say) -> None:
        """Take over the waivers that hosts declare; those of the run's file come first."""
        for entry in entries:
            if entry.config is None:
                continue
            self.waivers += declared_waivers(entry.config, entry.key, self.catalogue.controls)
            others = sorted({*declared_profiles(entry.config)} - {*self.settings.profiles})
            if others:
                say(
                    f"{entry.key}: asks for the profiles {', '.join(others)}, which this run does not"
                    f" judge: --nixos-profile {' --nixos-profile '.join(others)}"
                )

    def _look_at_systems(self, entries: Sequence[HostEntry], say: Say) -> None:
        """Say what hosts of another system take, before anything is built."""
        for entry in entries:
            assert entry.config is not None
            system = entry.config.system
            if system == self.flake(entry.key).system or self.backend_name(entry.key).runs_already:
                continue
            entry.foreign = foreign_system(self.flakes.nix, system)
            if entry.foreign is not None:
                say(f"{entry.key}: a host for {system}: {entry.foreign.told}")

    def came_from_elsewhere(self) -> None:
        """Forget what the evaluations left on the machine that sent this session: its store is
        not the one of this process, which evaluates anew.
        """
        self.flakes.forget()
        for entry in self.entries:
            if entry.config is not None:
                entry.elsewhere, entry.config = entry.config.derivation, None

    def host_config(self, key: str) -> HostConfig:
        """Return what a host declares.

        :raises EvalError: if it did not evaluate.
        """
        entry = self._entries[key]
        if entry.config is None and entry.failure is None:
            self.evaluate([key])
        if entry.config is None:
            raise entry.failure or MachineError(
                f"{key}: was not evaluated", remedy="report this as a defect of pytest-nixos"
            )
        return entry.config

    def boot_loader_config(self, key: str) -> HostConfig:
        """Return the host as a VM with a disk and boot loader of its own; evaluated when it is
        first asked for.

        :raises MachineError: if its backend has no boot loader.
        :raises EvalError: if it does not evaluate so.
        """
        backend = self.backend_name(key)
        if backend is not BackendName.VM:
            raise MachineError(
                f"{key}: a machine of the {backend.value} backend has no boot loader",
                remedy="run the host as a VM: --nixos-backend vm",
            )
        entry = self._entries[key]
        if entry.boot_loader is None:
            flake = self.flakes.of(entry.ref.flake)
            entry.boot_loader = flake.evaluate(
                entry.ref.attr, backend=BackendName.VM_WITH_BOOT_LOADER
            )
        return entry.boot_loader

    def control(self, control_id: str) -> Control:
        """Return a control as the profile tunes it, or as the catalogue has it.

        :raises CatalogueError: if there is none of that id.
        """
        return self._by_id.get(control_id) or self.catalogue.control(control_id)

    def selects(self, control: Control, key: str | None = None) -> bool:
        """Whether the profiles of this run select `control`, of a host those that are about it.

        The machine beneath a home is nobody's declaration.

        :param key: the host's.
        """
        if key is not None and isinstance(self._entries[key].ref.flake, HomesRef):
            return control.id in self._by_id and control.homes
        return control.id in self._by_id

    def clones(self, key: str) -> bool:
        """Whether each machine of a host is a clone of its snapshot, so that one more costs
        little.
        """
        entry = self._entries[key]
        return (
            self.settings.snapshot is not SnapshotUse.OFF
            and entry.config is not None
            and not entry.config.snapshot_refusal
            and self.backend_name(key) is BackendName.VM
        )

    def backend_name(self, key: str) -> BackendName:
        """Return how a host's machine runs."""
        if self.recording is not None:
            return self.recording.backend(key)
        if self.settings.backend is not None:
            return self.settings.backend
        container = self.host_config(key).is_container
        return BackendName.CONTAINER if container else BackendName.VM

    def needs_of(
        self,
        key: str,
        observations: Callable[[], Observations | None],
        *,
        foreseen: tuple[str, ...] = (),
    ) -> NeedsOfMachine:
        """Return what tells which units of a host's machine need an internet that is not there.

        A live host has what it has, and a VM reaches what this machine reaches where people ask for
        that; a container's network always ends at its link.
        """
        from pytest_nixos.machine.boot.internet import NoWayOut
        from pytest_nixos.observe.network.internet import NeedsOfMachine

        backend = self.backend_name(key)
        reaches = backend is BackendName.SSH or (
            backend is BackendName.VM and self.settings.open_network
        )
        host = self._entries[key].config
        return NeedsOfMachine(
            no_way_out=None if reaches or host is None else NoWayOut.of(host),
            observations=observations,
            foreseen=foreseen,
        )

    def plan_builds(self, keys: Sequence[str]) -> None:
        """Remember the hosts whose machines tests of this process need, in their order."""
        self.planned = self._to_build = tuple(keys)

    def take_builds(self) -> tuple[str, ...]:
        """Return the derivations of planned hosts that do not look built yet; nothing the next
        time.

        Nix builds several at once sooner than one after the other.
        """
        keys, self._to_build = self._to_build, ()
        hosts = [
            entry.config
            for entry in map(self.entry, keys)
            if entry.config is not None
            and not self.backend_name(entry.key).runs_already
            and (entry.foreign is None or entry.foreign.not_run is None)
        ]
        return tuple(host.derivation for host in hosts if not Path(host.output).exists())


def _secret_names(host: HostConfig) -> tuple[str, ...]:
    return tuple(secret.name for secret in host.secrets.secrets)
