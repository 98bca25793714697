"""From a host of the session to a running machine: build, spec, backend, start, and the way
back.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_nixos.backend_name import BackendName
from pytest_nixos.errors import NixosError, SettingsError
from pytest_nixos.local.pace import Pace, Pressure, PressureMark
from pytest_nixos.local.run_directory import RunDirectory, run_directory
from pytest_nixos.machine.base import Backend, Machine, MachineSpec
from pytest_nixos.machine.boot.events import BootListener
from pytest_nixos.machine.capabilities import Preflight
from pytest_nixos.nix.host_facts import HostConfig
from pytest_nixos.plugin.options import Keep, Settings, SnapshotUse
from pytest_nixos.plugin.progress import Progress
from pytest_nixos.plugin.session import HostEntry, NixosSession

if TYPE_CHECKING:
    from pytest_nixos.machine.vm.launcher import SnapshotOptions

__all__ = ["Launch", "bundled_backend"]


class Launch:
    """One machine on its way up and down; a context manager that yields the running machine.

    :param boot_loader: give it a disk and boot loader of its own, so that a reboot comes into what
        is the default there.
    """

    def __init__(
        self,
        session: NixosSession,
        key: str,
        *,
        progress: Progress,
        config: Any,
        boot_loader: bool = False,
    ) -> None:
        self._session = session
        self._entry = session.entry(key)
        self._progress = progress
        self._config = config
        self._boot_loader = boot_loader
        self._stack = ExitStack()
        self._directory: RunDirectory | None = None
        self._begun = PressureMark.now()

    def __enter__(self) -> Machine:
        with ExitStack() as stack:
            self._directory = stack.enter_context(run_directory())
            try:
                machine = self._start(stack, self._directory)
            except NixosError:
                self.keep(failed=True)
                raise
            self._stack = stack.pop_all()
        return machine

    def __exit__(self, *_exc: object) -> None:
        self._entry.circumstances["pressure"] = self.pressure.to_json()
        self._stack.close()

    @property
    def pressure(self) -> Pressure:
        """How hard this machine was pressed since the machine's start."""
        return self._begun.until(PressureMark.now())

    def keep(self, *, failed: bool) -> None:
        """Decide whether the run directory stays, as ``--nixos-keep`` says."""
        wanted = self._session.settings.keep
        if self._directory is not None and (
            wanted is Keep.ALWAYS or (wanted is Keep.FAILED and failed)
        ):
            self._directory.keep = True
            with self._progress.speaking():
                self._progress.say(f"{self._entry.key}: kept {self._directory.path}")

    def _start(self, stack: ExitStack, directory: RunDirectory) -> Machine:
        backend = self._backend()
        if isinstance(backend, Preflight):
            backend.preflight(self._entry.key)
        machine = stack.enter_context(Machine(self._spec(directory), backend))
        machine.before_shell = self._progress.hush
        spec = machine.spec
        self._begun = PressureMark.now()
        with _phase(self._entry, "boot"):
            machine.start()
        self._entry.circumstances |= {
            "pace": spec.pace.factor,
            "pressure_of_boot": self.pressure.to_json(),
            "added_kernel_params": list(getattr(machine.running, "added_kernel_params", ())),
        }
        self._config.hook.pytest_nixos_machine_booted(config=self._config, machine=machine)
        return machine

    def _spec(self, directory: RunDirectory) -> MachineSpec:
        settings, host = self._session.settings, self._host()
        live = self._session.backend_name(self._entry.key) is BackendName.SSH
        system = Path(host.toplevel) if live else self._build(host, directory)
        pace = self._measured_pace()
        spec = MachineSpec(
            host=host,
            system=system,
            run_dir=directory.path,
            boot_timeout_s=pace.limit(settings.boot_timeout_s),
            pace=pace,
            memory_mib=settings.memory_mib,
            cores=settings.cores,
        )
        changed = self._config.hook.pytest_nixos_machine_spec(config=self._config, spec=spec)
        return spec if changed is None else changed

    def _measured_pace(self) -> Pace:
        """Return how slow this machine is; people are told once."""
        told = self._session.has_pace
        pace = self._session.pace
        if pace.words and not told:
            self._progress.say(pace.words)
        return pace

    def _host(self) -> HostConfig:
        if self._boot_loader:
            return self._session.boot_loader_config(self._entry.key)
        return self._session.host_config(self._entry.key)

    def _build(self, host: HostConfig, directory: RunDirectory) -> Path:
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
        )


def bundled_backend(
    name: BackendName, settings: Settings, on_event: BootListener, *, started_at_s: float = 0.0
) -> Backend:
    """Make one of the bundled backends; each is imported only when it is used.

    :param started_at_s: when the session began, seconds since 1970.
    """
    if name is BackendName.VM:
        from pytest_nixos.machine.vm.backend import VmBackend, VmOptions

        options = VmOptions(
            snapshots=_snapshots(settings, started_at_s),
            sandboxed=not settings.run_script_has_my_rights,
            network=settings.open_network,
        )
        return VmBackend(options, on_event=on_event)
    if name is BackendName.CONTAINER:
        from pytest_nixos.machine.container.backend import ContainerBackend

        return ContainerBackend(
            on_event=on_event,
            root_is_machine_root=settings.container_root_is_machine_root,
        )
    from pytest_nixos.machine.ssh.backend import SshBackend

    if settings.ssh_address is None:
        raise SettingsError(
            "--nixos-backend ssh: no address of the live host",
            remedy="add --nixos-ssh [user@]address",
        )
    return SshBackend(settings.ssh_address, on_event=on_event)


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
