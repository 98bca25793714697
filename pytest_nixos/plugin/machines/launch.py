"""From a host of the session to a running machine: build, spec, backend, start, and the way
back.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_nixos.backend_name import BackendName
from pytest_nixos.errors import MachineError, NixosError, SettingsError
from pytest_nixos.local.pace import Pace, Pressure, PressureMark
from pytest_nixos.local.run_directory import RunDirectory, run_directory
from pytest_nixos.local.timing import Recall
from pytest_nixos.machine.base import Backend, Machine, MachineSpec, SecretArchive, State
from pytest_nixos.machine.boot.events import BootListener
from pytest_nixos.machine.capabilities import Preflight
from pytest_nixos.machine.door.door import Door
from pytest_nixos.machine.memory_needs import MemoryPlan, machines_at_once, plan_memory
from pytest_nixos.machine.missing import missing_in_machine
from pytest_nixos.nix.asked_once import AskedAhead
from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.plugin.machines.kept import KEPT, KeptMachines, refusal
from pytest_nixos.plugin.machines.spares import SPARES, Spares
from pytest_nixos.plugin.progress import HeldProgress, Progress
from pytest_nixos.plugin.session import HostEntry, NixosSession
from pytest_nixos.plugin.settings.declared_options import (
    HOST_IN_ADDRESS,
    Keep,
    NetworkUse,
    SnapshotUse,
)
from pytest_nixos.plugin.settings.options import Settings

if TYPE_CHECKING:
    from pytest_nixos.machine.vm.launcher import SnapshotOptions

__all__ = ["Launch", "bundled_backend", "door_of"]


class Launch:
    """One machine on its way up and down; a context manager that yields the running machine.

    :param boot_loader: give it a disk and boot loader of its own, so that a reboot comes into what
        is the default there.
    :param tells: whether :meth:`tell` is called when it has started; a machine that is started in
        another thread tells later.
    :param clone_only: start it from its snapshot, or not at all.
    :param recall: ends its start from another thread.
    """

    def __init__(
        self,
        session: NixosSession,
        key: str,
        *,
        progress: Progress | HeldProgress,
        config: Any,
        boot_loader: bool = False,
        tells: bool = True,
        clone_only: bool = False,
        recall: Recall | None = None,
    ) -> None:
        self._tells = tells
        self._recall = recall
        self._clone_only = clone_only
        self._machine: Machine | None = None
        self._session = session
        self._entry = session.entry(key)
        self._progress = progress
        self._config = config
        self._boot_loader = boot_loader
        self._stack = ExitStack()
        self._directory: RunDirectory | None = None
        self._rooted: AskedAhead[Path] | None = None
        self._begun = PressureMark.now()
        #: lets other processes of this user in, ``None`` for a host that runs anyway
        self.door: Door | None = None

    def __enter__(self) -> Machine:
        machine = self._machine or self.start()
        try:
            if not self._session.backend_name(self._entry.key).runs_already:
                self.door = self._stack.enter_context(door_of(machine, self._entry.key))
            if self._tells:
                self.tell(machine)
        except BaseException:
            self.close()
            raise
        return machine

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def start(self) -> Machine:
        """Start the machine; who enters the context later gets it."""
        with ExitStack() as stack:
            self._directory = stack.enter_context(run_directory())
            try:
                self._machine = machine = self._start(stack, self._directory)
            except NixosError:
                if not self._clone_only:
                    self.keep(failed=True)
                raise
            self._stack = stack.pop_all()
        return machine

    def belongs_to(self, session: NixosSession) -> None:
        """Make a machine that was started ahead one of a session, which tells of it."""
        self._session = session
        self._entry = session.entry(self._entry.key)
        self._tells = True

    def close(self) -> None:
        """End the machine; safe to call twice."""
        self._entry.circumstances["pressure"] = self.pressure.to_json()
        spares: Spares | None = self._config.stash.get(SPARES, None)
        if spares is not None and self._machine is not None and self.door is not None:
            spares.note(self._machine, str(self._entry.ref))
        self._stack.close()

    @property
    def pressure(self) -> Pressure:
        """How hard this machine was pressed since the machine's start."""
        return self._begun.until(PressureMark.now())

    def keep(self, *, failed: bool) -> None:
        """Decide whether the machine or at least its run directory stays, as ``--nixos-keep``
        says.
        """
        wanted = self._session.settings.keep
        if self._directory is not None and (
            wanted is Keep.ALWAYS or (wanted is Keep.FAILED and failed)
        ):
            kept: KeptMachines | None = self._config.stash.get(KEPT, None)
            if kept is not None and self.lives and kept.has_room:
                kept.add(self)
                return
            self._directory.keep = True
            why = f" (not running: {said})" if (said := refusal(os.environ)) else ""
            with self._progress.speaking():
                self._progress.say(f"{self._entry.key}: kept {self._directory.path}{why}")

    @property
    def lives(self) -> bool:
        """Whether its machine is up and can be entered."""
        machine = self._machine
        if machine is None or self.door is None or machine.state is not State.RUNNING:
            return False
        return machine.running.is_alive()

    def take_machine(self) -> ExitStack:
        """Return what ends the machine, which outlives this context manager from now on."""
        return self._stack.pop_all()

    def _start(self, stack: ExitStack, directory: RunDirectory) -> Machine:
        backend = self._backend()
        if isinstance(backend, Preflight):
            backend.preflight(self._entry.key)
        machine = stack.enter_context(Machine(self._spec(stack, directory), backend))
        machine.before_shell = self._progress.hush
        spec = machine.spec
        self._begun = PressureMark.now()
        with _phase(self._entry, "boot"):
            machine.start(clone_only=self._clone_only)
        if self._rooted is not None:
            self._rooted.take()
        self._entry.circumstances |= {
            "pace": spec.pace.factor,
            "pressure_of_boot": self.pressure.to_json(),
            "added_kernel_params": list(getattr(machine.running, "added_kernel_params", ())),
        }
        return machine

    def tell(self, machine: Machine) -> None:
        """Tell other plugins of a machine that has started."""
        self._config.hook.pytest_nixos_machine_booted(config=self._config, machine=machine)

    def _spec(self, stack: ExitStack, directory: RunDirectory) -> MachineSpec:
        settings, host = self._session.settings, self._host()
        self._check_network()
        live = self._session.backend_name(self._entry.key).runs_already
        if host.own_disks:
            from pytest_nixos.machine.disks.layout import layout_of

            # Refused before anything is built.
            self._entry.circumstances["disks"] = layout_of(host).words
        secrets = None if live else self._secrets(host, directory)
        memory = MemoryPlan(mib=None) if live else self._plan_memory(host)
        if not live:
            self._tell_missing(host)
        system = Path(host.toplevel) if live else self._system(host, stack, directory)
        pace = self._measured_pace()
        spec = MachineSpec(
            host=host,
            system=system,
            run_dir=directory.path,
            boot_timeout_s=pace.limit(settings.boot_timeout_s),
            pace=pace,
            memory_mib=memory.mib,
            cores=settings.cores,
            secrets=secrets,
            recall=self._recall,
            registration=None if live else self._session.flakes.registration(system),
        )
        changed = self._config.hook.pytest_nixos_machine_spec(config=self._config, spec=spec)
        return spec if changed is None else changed

    def _check_network(self) -> None:
        """Refuse, before anything is built, a network that the backend cannot give."""
        settings, key = self._session.settings, self._entry.key
        network = settings.network
        backend = self._session.backend_name(key)
        if network is NetworkUse.STAND_IN and backend.runs_already:
            raise MachineError(
                f"{key}: --nixos-network stand-in is for VMs and containers: a machine that runs already has the network that it has",
                remedy="run the host as a VM or a container, or say --nixos-network restricted",
            )
        unconfined = backend is BackendName.VM and settings.run_script_has_my_rights
        if network is NetworkUse.STAND_IN and unconfined:
            raise MachineError(
                f"{key}: --nixos-network stand-in needs the sandbox of the run script, whose network it answers in",
                remedy="leave out --nixos-run-script-has-my-rights, or say --nixos-network restricted",
            )
        if network is NetworkUse.OPEN and backend is BackendName.CONTAINER:
            self._progress.say(
                f"{key}: a container's network ends at its link: --nixos-network open is for VMs"
            )

    def _plan_memory(self, host: HostConfig) -> MemoryPlan:
        """Decide the machine's memory before anything is built, and tell what was changed."""
        settings = self._session.settings
        plan = plan_memory(
            host,
            asked_mib=settings.memory_mib,
            models=settings.open_network,
            machines=machines_at_once(),
        )
        if plan.told:
            self._entry.circumstances["memory"] = plan.told
            self._progress.say(f"{self._entry.key}: {plan.told}")
        return plan

    def _tell_missing(self, host: HostConfig) -> None:
        """Say what the host's machine lacks, before its boot waits for it."""
        container = self._session.backend_name(self._entry.key) is BackendName.CONTAINER
        told = missing_in_machine(host, machine="container" if container else "VM")
        if told:
            self._entry.circumstances["missing"] = told
            self._progress.say(f"{self._entry.key}: {told}")

    def _secrets(self, host: HostConfig, directory: RunDirectory) -> SecretArchive | None:
        """Write what the machine gets for the host's secrets; people are told once."""
        from pytest_nixos.plugin.machines.secrets import archived, secrets_of

        settings, entry = self._session.settings, self._entry
        if entry.secrets is None:
            entry.secrets = secrets_of(host, settings, self._config)
            if entry.secrets.told:
                self._progress.say(f"{entry.key}: {entry.secrets.told}")
                entry.circumstances["secrets"] = entry.secrets.told
        secrets = entry.secrets
        # The machine of an upgrade test switches to the other stage's generation.
        for other in self._session.entries:
            if other is not entry and entry.subject and other.subject == entry.subject:
                config = self._session.host_config(other.key)
                secrets = secrets.beside(secrets_of(config, settings, self._config))
        return archived(secrets, directory.path)

    def _measured_pace(self) -> Pace:
        """Return how slow this machine is by now; people are told."""
        pace = self._session.pacer.now()
        if news := self._session.pace_news(pace):
            self._progress.say(news)
        return pace

    def _host(self) -> HostConfig:
        if self._boot_loader:
            return self._session.boot_loader_config(self._entry.key)
        return self._session.host_config(self._entry.key)

    def _system(self, host: HostConfig, stack: ExitStack, directory: RunDirectory) -> Path:
        """Return what the machine runs from. That of a clone has been built: Nix is told to keep it
        while the clone starts, and whoever has the machine knows that it does.
        """
        if not self._clone_only:
            return self._build(host, directory)
        self._rooted = AskedAhead(lambda: self._build(host, directory))
        # Nix writes to the directory, which goes only afterwards.
        stack.callback(self._rooted.wait)
        return Path(host.output)

    def _build(self, host: HostConfig, directory: RunDirectory) -> Path:
        if self._entry.foreign is not None and self._entry.foreign.not_run is not None:
            raise self._entry.foreign.not_run
        flake, on_progress = self._session.flake(self._entry.key), self._progress.build
        ahead = self._session.take_builds()
        if len(ahead) > 1:
            with _phase(self._entry, f"build of {len(ahead)} hosts"):
                flake.nix.build_ahead(ahead, on_progress=on_progress)
        with _phase(self._entry, "build"):
            return flake.build(host, gc_root=directory.path / "system", on_progress=on_progress)

    def _backend(self) -> Backend:
        name = self._session.backend_name(self._entry.key)
        offered: dict[str, Backend] = {}
        for more in self._config.hook.pytest_nixos_backends(
            config=self._config, settings=self._session.settings
        ):
            offered |= more
        return offered.get(name.value) or bundled_backend(
            name,
            self._session.settings,
            self._progress.boot,
            started_at_s=self._session.started_at_s,
            host=self._entry.ref.attr,
        )


def door_of(machine: Machine, key: str) -> Door:
    """Make the door of a machine that runs.

    :param key: of its host.
    """
    return Door(
        key,
        machine.backend.name.value,
        transport=lambda: machine.transport,
        entered=machine.invalidate,
    )


def bundled_backend(
    name: BackendName,
    settings: Settings,
    on_event: BootListener,
    *,
    started_at_s: float = 0.0,
    host: str = "",
) -> Backend:
    """Make one of the bundled backends; each is imported only when it is used.

    :param started_at_s: when the session began, seconds since 1970.
    :param host: name of the host in its flake, of which a live host's address may be made.
    """
    if name is BackendName.VM:
        from pytest_nixos.machine.vm.backend import VmBackend, VmOptions
        from pytest_nixos.machine.vm.store_image import StoreImages

        options = VmOptions(
            snapshots=_snapshots(settings, started_at_s),
            sandboxed=not settings.run_script_has_my_rights,
            network=settings.open_network,
            stand_in=settings.network is NetworkUse.STAND_IN,
            store_images=StoreImages.of_user(),
            # What is kept of a machine is in its own run directory.
            takes_spares=settings.keep is Keep.NEVER,
        )
        return VmBackend(options, on_event=on_event)
    if name is BackendName.CONTAINER:
        from pytest_nixos.machine.container.backend import ContainerBackend

        return ContainerBackend(
            on_event=on_event,
            root_is_machine_root=settings.container_root_is_machine_root,
            stand_in=settings.network is NetworkUse.STAND_IN,
        )
    if name is BackendName.TEST_DRIVER and settings.test_driver is not None:
        from pytest_nixos.machine.driver.backend import DriverBackend

        return DriverBackend(settings.test_driver, on_event=on_event)
    from pytest_nixos.machine.ssh.backend import SshBackend

    if settings.ssh_address is None:
        raise SettingsError(
            "--nixos-backend ssh: no address of the live host",
            remedy="add --nixos-ssh [user@]address",
        )
    address = settings.ssh_address.replace(HOST_IN_ADDRESS, host)
    return SshBackend(address, on_event=on_event, surveys=settings.allow_live_switch)


def _snapshots(settings: Settings, started_at_s: float) -> SnapshotOptions | None:
    from pytest_nixos.machine.snapshot.store import SnapshotStore
    from pytest_nixos.machine.vm.launcher import SnapshotOptions

    if settings.snapshot is SnapshotUse.OFF:
        return None
    return SnapshotOptions(
        store=SnapshotStore.of_user(),
        limits=settings.cache_limits,
        # Saved anew once in a session, not once a machine.
        not_before_s=started_at_s if settings.snapshot is SnapshotUse.REFRESH else 0.0,
    )


@contextmanager
def _phase(entry: HostEntry, name: str) -> Iterator[None]:
    started_s = time.monotonic()
    try:
        yield
    finally:
        entry.phases_s[name] = time.monotonic() - started_s
