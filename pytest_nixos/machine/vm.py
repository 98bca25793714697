"""The VM backend: the host's own run script, watched from its first line to its last process."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_nixos.errors import BootError, NixosError, TransportError
from pytest_nixos.machine.base import BackendName, MachineSpec, PortState, Transport
from pytest_nixos.machine.boot_events import (
    BootEventKind,
    BootListener,
    ignore_boot_event,
)
from pytest_nixos.machine.boot_failure import ended_error, fatal_error, late_error
from pytest_nixos.machine.boot_news import BootNews
from pytest_nixos.machine.console import Console, Trouble
from pytest_nixos.machine.kvm import KvmProbe, VerdictCache
from pytest_nixos.machine.leftovers import end_marked_processes, remove_tree
from pytest_nixos.machine.net_probe import FrameProber
from pytest_nixos.machine.qemu_argv import (
    Acceleration,
    accelerator_argv,
    check_run_dir,
    disk_image,
    machine_argv,
    monitor_argv,
    monitor_socket,
    qemu_options_name,
    run_environment,
    script_paths,
)
from pytest_nixos.machine.qmp import QmpMonitor
from pytest_nixos.machine.run_script import (
    RunScript,
    find_run_script,
    parse_run_script,
    qemu_version,
    serial_console,
)
from pytest_nixos.machine.serial_process import SerialProcess
from pytest_nixos.machine.settle import SettleLimits, settle
from pytest_nixos.machine.transport import SerialChannel
from pytest_nixos.machine.watched_transport import WatchedTransport
from pytest_nixos.process import Runner, SubprocessRunner
from pytest_nixos.timing import Deadline

__all__ = ["VmBackend", "VmOptions", "VmRunning"]

_TAIL = 20
_QUIT_S = 1.0
_FLUSH_S = 2.0
# After a fatal line the guest goes on for a moment: a panic's trace, stage 1's question.
_LAST_WORDS_QUIET_S = 0.5
_LAST_WORDS_S = 2.0
_PANIC = "kernel panic"
_DISK_FULL = "host machine: disk full"
_DEADLY = frozenset({_PANIC, _DISK_FULL})


@dataclass(frozen=True, slots=True, kw_only=True)
class VmOptions:
    """How VMs are run.

    :param acceleration: ``AUTO`` uses KVM where it truly works.
    :param restrict_network: keep guests from reaching beyond the host machine even if the run script was
        built without the instrumentation, which does the same.
    :param reboots: let the guest reboot in place; otherwise a reboot ends QEMU.
    :param settle: when a boot counts as finished or as stuck.
    :param grace_s: seconds that QEMU and its helpers get between SIGTERM and SIGKILL.
    :param extra_argv: further QEMU arguments, after all others.
    """

    acceleration: Acceleration = Acceleration.AUTO
    restrict_network: bool = False
    reboots: bool = False
    settle: SettleLimits = field(default_factory=SettleLimits)
    grace_s: float = 2.0
    extra_argv: tuple[str, ...] = ()


class VmBackend:
    """Runs a host by the run script that ``config.system.build.vm`` made for it.

    :param on_event: told what happens during boots, from any thread.
    :param runner: runs the short commands that find out about QEMU.
    :param environment: what the run script inherits, this process's environment if ``None``.
    """

    name = BackendName.VM

    def __init__(
        self,
        options: VmOptions | None = None,
        on_event: BootListener = ignore_boot_event,
        *,
        runner: Runner | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._options = options or VmOptions()
        self._on_event = on_event
        self._runner = runner or SubprocessRunner()
        self._environment = environment
        self._warned = False

    def start(self, spec: MachineSpec, *, deadline: Deadline) -> VmRunning:
        """Start a machine and wait until its boot has settled.

        :raises BootError: if it does not get there; nothing is left running.
        :raises MachineError: if it cannot be started at all.
        """
        inherited = dict(os.environ if self._environment is None else self._environment)
        check_run_dir(spec.run_dir)
        script = parse_run_script(find_run_script(spec.system, spec.host.program))
        news = BootNews(spec.host.name, self._on_event)
        argv = self._argv(spec, script, inherited, news)
        env = run_environment(
            spec.run_dir,
            script,
            serial=serial_console(spec.host.system),
            restrict_network=self._options.restrict_network,
            inherited=inherited,
        )
        with contextlib.ExitStack() as stack:
            running = VmRunning(spec.host.name, spec.run_dir, news, stack, argv, env)
            running.boot(deadline, self._options)
            running.keep(stack.pop_all())
        return running

    def _argv(
        self, spec: MachineSpec, script: RunScript, inherited: Mapping[str, str], news: BootNews
    ) -> tuple[str, ...]:
        user_cpu = qemu_options_name(inherited.get("QEMU_OPTS", ""), "-cpu")
        acceleration = self._acceleration(spec, script, inherited, news)
        version = qemu_version(self._runner, script.qemu_binary) if script.qemu_binary else None
        return (
            str(script.path),
            *accelerator_argv(acceleration, script, version, user_cpu=user_cpu),
            *machine_argv(
                memory_mib=spec.memory_mib, cores=spec.cores, reboots=self._options.reboots
            ),
            *monitor_argv(spec.run_dir),
            *SerialChannel.qemu_argv(spec.run_dir),
            *FrameProber.qemu_argv(spec.run_dir),
            *self._options.extra_argv,
        )

    def _acceleration(
        self, spec: MachineSpec, script: RunScript, inherited: Mapping[str, str], news: BootNews
    ) -> Acceleration:
        if self._options.acceleration is not Acceleration.AUTO:
            return self._options.acceleration
        reason = self._refusal(spec.host.system, script, inherited)
        if reason is None:
            return Acceleration.KVM
        if not self._warned:
            self._warned = True
            news.tell(BootEventKind.NO_KVM, f"no KVM, the machine runs slowly (TCG): {reason}")
        return Acceleration.TCG

    def _refusal(self, system: str, script: RunScript, inherited: Mapping[str, str]) -> str | None:
        guest = system.partition("-")[0]
        if guest and guest != os.uname().machine:
            return f"a {guest} guest on {os.uname().machine}"
        if script.qemu_binary is None:
            return f"{script.path.name} does not tell which QEMU it starts, so KVM cannot be tried"
        probe = KvmProbe(self._runner, VerdictCache.of_user(inherited))
        verdict = probe.probe(script.qemu_binary, cpu=script.cpu or "max")
        return None if verdict.usable else verdict.reason


class VmRunning:
    """A started VM; made by :class:`VmBackend`.

    :param stack: receives what must be undone, in the order in which it was done.
    """

    def __init__(
        self,
        name: str,
        run_dir: Path,
        news: BootNews,
        stack: contextlib.ExitStack,
        argv: Sequence[str],
        env: Mapping[str, str],
    ) -> None:
        self.argv = tuple(argv)
        self.console: Console = news.console
        self.transport: Transport
        self._name = name
        self._run_dir = run_dir
        self._news = news
        self._stack = stack
        self._channel: SerialChannel | None = None
        self._booted = False
        self._process = SerialProcess(argv, env=env, cwd=run_dir, console=self.console)
        self.qmp = QmpMonitor(monitor_socket(run_dir), on_event=self._on_qmp_event)

    @property
    def pid(self) -> int:
        """Process id of QEMU (the run script becomes it)."""
        return self._process.pid

    @property
    def qmp_path(self) -> Path:
        """Socket of QEMU's monitor; :attr:`qmp` holds its only connection."""
        return self.qmp.path

    def boot(self, deadline: Deadline, options: VmOptions) -> None:
        """Start QEMU and wait until the root command channel answers and the boot has settled."""
        self._prepare()
        self._stack.callback(self._process.stop, grace_s=options.grace_s)
        self._process.start()
        self._stack.callback(self.qmp.close)
        self.qmp.start()
        self._stack.callback(self._quit)
        self._connect(deadline)
        self._news.tell(BootEventKind.CHANNEL, "the root command channel answers")
        self._settle(deadline, options.settle)
        self._booted = True

    def keep(self, stack: contextlib.ExitStack) -> None:
        """Take over what :meth:`stop` has to undo."""
        self._stack = stack

    def is_alive(self) -> bool:
        """Whether QEMU still runs."""
        return self.pid != 0 and not self._process.has_ended

    def probe_tcp(self, ports: Sequence[int], *, deadline: Deadline) -> Mapping[int, PortState]:
        """Try TCP ports of the guest from its own network, beside QEMU's user network."""
        return FrameProber(self._run_dir).probe_tcp(ports, deadline=deadline)

    def stop(self) -> None:
        """End QEMU and remove everything that it left; never raises, safe to call twice."""
        try:
            self._stack.close()
        except (OSError, NixosError) as err:
            self.console.append(f"pytest-nixos: while stopping {self._name}: {err}")

    def _prepare(self) -> None:
        self._run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        before = {path.name for path in self._run_dir.iterdir()}
        self._stack.callback(_remove_new, self._run_dir, before)
        image = str(disk_image(self._run_dir))
        self._stack.callback(end_marked_processes, "NIX_DISK_IMAGE", image)
        paths = script_paths(self._run_dir)
        for name in ("TMPDIR", "SHARED_DIR"):
            paths[name].mkdir(mode=0o700, exist_ok=True)

    def _connect(self, deadline: Deadline) -> None:
        channel = SerialChannel(self._run_dir)
        self._stack.callback(channel.close)
        self._channel = channel
        with self._explained(deadline, "no answer from the root command channel"):
            channel.wait_ready(deadline, self._check)
        self.transport = WatchedTransport(
            channel, lambda: self._obituary(wait_s=_LAST_WORDS_QUIET_S) if self._booted else None
        )

    def _settle(self, deadline: Deadline, limits: SettleLimits) -> None:
        with self._explained(deadline, "the boot did not settle"):
            settle(
                self.transport,
                machine=self._name,
                deadline=deadline,
                limits=limits,
                tell=self._news.tell,
                check=self._check,
            )

    @contextlib.contextmanager
    def _explained(self, deadline: Deadline, what: str) -> Iterator[None]:
        """Turn a broken or silent channel into the boot error that caused it."""
        try:
            yield
        except BootError:
            raise
        except TransportError as err:
            self._process.wait_ended(_LAST_WORDS_QUIET_S)
            self._check()
            if deadline.expired:
                raise late_error(self._name, self.console, what, deadline.limit_s) from err
            raise BootError(
                f"{self._name}: {what}: {err.message}",
                remedy=err.remedy,
                state="channel broken",
                console_tail=self.console.tail(_TAIL),
            ) from err

    def _check(self) -> None:
        """Raise at once if the machine ended or its boot cannot succeed any more."""
        if self._booted:
            end = self._obituary()
            if end is not None:
                raise end
            return
        trouble = self.console.fatal_trouble
        if trouble is not None:
            self._await_last_words()
            raise fatal_error(self._name, self.console, trouble)
        if self._process.has_ended:
            raise ended_error(self._name, self.console, self._process.end_words)

    def _await_last_words(self) -> None:
        deadline = Deadline.after(_LAST_WORDS_S)
        while not deadline.expired and not self._process.has_ended:
            if self.console.quiet_s >= _LAST_WORDS_QUIET_S:
                return
            time.sleep(0.05)

    def _obituary(self, *, wait_s: float = 0.0) -> TransportError | None:
        """Say why a machine that had come up is gone, ``None`` while it lives.

        A console that shows emergency mode then is a test's own doing; a panic or a full disk is not.
        """
        # The channel breaks a moment before the process is reaped.
        ended = self._process.wait_ended(wait_s)
        troubles = tuple(t for t in self.console.troubles if t.fatal and t.kind in _DEADLY)
        if not ended and not troubles:
            return None
        how = f"QEMU ended {self._process.end_words}" if ended else "the machine broke"
        cause = f" ({troubles[0].kind}: {troubles[0].text})" if troubles else ""
        tail = "".join(f"\n  | {line}" for line in self.console.tail(_TAIL))
        return TransportError(
            f"{self._name}: {how}{cause}; last console lines:{tail}",
            remedy="find out what ended the machine; every later check on this host fails with this cause",
        )

    def _on_qmp_event(self, event: str, data: Mapping[str, Any]) -> None:
        # "nospace" is there only for drives that stop on errors; nixpkgs' report them to the guest.
        full = data.get("nospace") or "No space left" in str(data.get("reason", ""))
        if event == "BLOCK_IO_ERROR" and full:
            text = f"QEMU could not write to {data.get('device') or data.get('node-name')}"
            self._break(Trouble(kind=_DISK_FULL, text=text, fatal=True))
        elif event == "GUEST_PANICKED":
            self._break(Trouble(kind=_PANIC, text="reported by QEMU", fatal=True))

    def _break(self, trouble: Trouble) -> None:
        """Note a fatal trouble and free whoever waits for a command that cannot end."""
        self.console.record(trouble)
        if self._channel is not None:
            self._channel.close()

    def _quit(self) -> None:
        if self.is_alive() and self.qmp.quit(deadline=Deadline.after(_QUIT_S)):
            self._process.wait_ended(_FLUSH_S)


def _remove_new(directory: Path, before: set[str]) -> None:
    for path in directory.iterdir() if directory.is_dir() else ():
        if path.name in before:
            continue
        if path.is_dir() and not path.is_symlink():
            remove_tree(path)
        else:
            path.unlink(missing_ok=True)
    if not before:
        with contextlib.suppress(OSError):
            directory.rmdir()
