"""A started VM: its process, monitor, console and channel, and what must be undone at its end."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pytest_nixos.errors import BootError, MachineError, NixosError, TransportError
from pytest_nixos.local.leftovers import end_marked_processes, remove_tree
from pytest_nixos.local.sandbox import Sandbox, payload_pid
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.base import PortState, Transport
from pytest_nixos.machine.boot.events import BootEventKind
from pytest_nixos.machine.boot.failure import ended_error, explained, fatal_error, remedy_for
from pytest_nixos.machine.boot.news import BootNews
from pytest_nixos.machine.boot.post_mortem import ask_failed_units, with_failed_units
from pytest_nixos.machine.boot.settle import SettleLimits, settle
from pytest_nixos.machine.channel.transport import SerialChannel
from pytest_nixos.machine.console import Console, Trouble
from pytest_nixos.machine.faults.outside import plug_network_cards
from pytest_nixos.machine.network.guest_address import ask_address
from pytest_nixos.machine.network.prober import FrameProber
from pytest_nixos.machine.power import BootsFrom, ask_to_power_off, await_end
from pytest_nixos.machine.qemu.qmp import QmpMonitor
from pytest_nixos.machine.serial_process import SerialProcess
from pytest_nixos.machine.snapshot.clone import Clone
from pytest_nixos.machine.snapshot.migration import load_state, save_state
from pytest_nixos.machine.snapshot.quiesce import make_store_writable, wake_guest
from pytest_nixos.machine.snapshot.record import Snapshot
from pytest_nixos.machine.vm.argv import disk_image, monitor_socket, script_paths
from pytest_nixos.machine.watched_transport import WatchedTransport

__all__ = ["VmRunning"]

_TAIL = 20
_QUIT_S = 1.0
_FLUSH_S = 2.0
# After a fatal line the guest goes on for a moment: a panic's trace, stage 1's question.
_LAST_WORDS_QUIET_S = 0.5
_LAST_WORDS_S = 2.0
_PANIC = "kernel panic"
_DISK_FULL = "host machine: disk full"
# The instrumentation starts the channel in these modes too.
_ANSWERING = frozenset({"emergency mode", "rescue mode"})
_POST_MORTEM_S = 8.0
_ORDER_S = 10.0
_DEADLY = frozenset({_PANIC, _DISK_FULL})


class VmRunning:
    """A started VM; made by :class:`VmBackend`.

    :param stack: receives what must be undone, in the order in which it was done.
    :param argv: gives the run script with our arguments; asked when it is started, which a clone is not.
    :param env: its whole environment.
    :param grace_s: seconds between SIGTERM and SIGKILL.
    :param prober: a stranger on the guest's network, ``None`` where it has no place to stand.
    :param limits: when a boot counts as settled; also of those after the first.
    :param sandbox: what the run script and QEMU run in, ``None`` for as this user.
    :param store_image: whether the guest's store is an image, which is read-only.
    """

    def __init__(
        self,
        name: str,
        run_dir: Path,
        news: BootNews,
        stack: contextlib.ExitStack,
        argv: Callable[[], Sequence[str]],
        env: Mapping[str, str],
        *,
        grace_s: float,
        prober: FrameProber | None,
        boots_from: BootsFrom = BootsFrom.SCRIPT,
        limits: SettleLimits | None = None,
        store_image: bool = False,
        sandbox: Sandbox | None = None,
    ) -> None:
        self._argv = argv
        self.console: Console = news.console
        self.transport: Transport
        self._name = name
        self._run_dir = run_dir
        self._grace_s = grace_s
        self._prober = prober
        self._news = news
        self._stack = stack
        self._channel: SerialChannel | None = None
        self._booted = False
        self._env = dict(env)
        self._limits = limits or SettleLimits()
        self._store_image = store_image
        self._sandbox = sandbox
        self.is_clone = False
        self.boots_from = boots_from
        self._plug_in(())

    @property
    def argv(self) -> tuple[str, ...]:
        """The run script with our arguments."""
        return tuple(self._argv())

    @property
    def pid(self) -> int:
        """Process id of QEMU (the run script becomes it)."""
        outer = self._process.pid
        return payload_pid(outer) if outer and self._sandbox is not None else outer

    @property
    def qmp_path(self) -> Path:
        """Socket of QEMU's monitor; :attr:`qmp` holds its only connection."""
        return self.qmp.path

    def boot(self, deadline: Deadline) -> None:
        """Start QEMU and wait until the root command channel answers and the boot has settled."""
        self._prepare()
        self._plug_in(self.argv)
        self._start(deadline)

    def restore(
        self,
        snapshot: Snapshot,
        clone: Clone,
        deadline: Deadline,
        *,
        make_disks: Callable[[], None],
    ) -> None:
        """Start QEMU with the state of a snapshot and wait until the guest answers, awake.

        :param make_disks: called once the run directory is there.
        :raises MachineError: if QEMU does not load it, or the guest is not as it was.
        """
        self._prepare()
        make_disks()
        self._plug_in(clone.argv, clone.cwd)
        self._switch_on()
        channel = self._open_channel()
        try:
            channel.connect(deadline, self._check)
            load_state(self.qmp, snapshot.state, deadline=deadline)
            # The first command begins its port's session: one way to the guest fewer than asking whether it is ready.
            self.transport = self._watched(channel)
            wake_guest(
                self.transport,
                snapshot.record.guest,
                saved_at_s=snapshot.record.saved_at_s,
                deadline=deadline,
            )
        except MachineError:
            self._process.wait_ended(_LAST_WORDS_QUIET_S)
            self._check()
            raise
        self._booted = True
        self.is_clone = True

    def save(self, state: Path, *, deadline: Deadline) -> None:
        """Stop the guest and write QEMU's state to a file; :meth:`thaw` lets it go on."""
        save_state(self.qmp, state, deadline=deadline)

    def end(self, *, deadline: Deadline) -> None:
        """End QEMU in order, so that its disks are whole; what it left stays until :meth:`stop`."""
        self._booted = False
        self.qmp.quit(deadline=deadline)
        self._process.wait_ended(deadline.remaining_s)
        self._process.stop(grace_s=self._grace_s)

    def power_off(self, *, orderly: bool, deadline: Deadline) -> None:
        """Shut the guest down, or end QEMU at once as a loss of power would; the disk stays."""
        if orderly and self.is_alive():
            ask_to_power_off(
                lambda command, limit: self.transport.run(command, deadline=limit),
                deadline=deadline,
            )
            await_end(self._name, lambda: not self.is_alive(), deadline=deadline)
        self._process.stop(grace_s=0.0)
        if self._channel is not None:
            self._channel.close()
        self.qmp.close()
        end_marked_processes("NIX_DISK_IMAGE", str(disk_image(self._run_dir)))
        self._booted = False

    def power_on(self, *, generation: int | None, deadline: Deadline) -> None:
        """Start the run script again, on the same disk.

        :raises MachineError: if a generation is asked for: a boot loader must be told before the reboot.
        """
        if generation is not None:
            raise MachineError(
                f"{self._name}: a VM cannot be started in generation {generation} from outside",
                remedy="let its boot loader choose: Generations.reboot(into=...)",
            )
        self.console.begin_boot()
        if self._prober is not None:
            self._prober = FrameProber(self._run_dir)
        self._plug_in(self.argv)
        self._start(deadline)

    def _plug_in(self, argv: Sequence[str], cwd: Path | None = None) -> None:
        confined = argv if self._sandbox is None or not argv else self._sandbox.argv(argv)
        self._process = SerialProcess(
            confined, env=self._env, cwd=cwd or self._run_dir, console=self.console
        )
        self.qmp = QmpMonitor(monitor_socket(self._run_dir), on_event=self._on_qmp_event)

    def _switch_on(self) -> None:
        self._stack.callback(self._process.stop, grace_s=self._grace_s)
        self._process.start()
        self._stack.callback(self.qmp.close)
        self.qmp.start()
        self._stack.callback(self._quit)

    def _start(self, deadline: Deadline) -> None:
        self._switch_on()
        try:
            self._connect(deadline)
            self._news.tell(BootEventKind.CHANNEL, "the root command channel answers")
            self._settle(deadline)
        except BootError as err:
            raise self._with_evidence(err) from err.__cause__
        self._booted = True

    def keep(self, stack: contextlib.ExitStack) -> None:
        """Take over what :meth:`stop` has to undo."""
        self._stack = stack

    def is_alive(self) -> bool:
        """Whether QEMU still runs."""
        return self._process.pid != 0 and not self._process.has_ended

    def probe_tcp(self, ports: Sequence[int], *, deadline: Deadline) -> Mapping[int, PortState]:
        """Try TCP ports of the guest from its own network, beside QEMU's user network."""
        if self._prober is None:
            raise MachineError(
                f"{self._name}: its run script has no user network named user.0 to stand on",
                remedy="keep virtualisation.qemu.networkingOptions of the host as qemu-vm.nix sets it",
            )
        address = ask_address(self._name, self.transport, deadline=deadline)
        try:
            self._prober.face(address)
            return self._prober.probe_tcp(ports, deadline=deadline)
        except TransportError as err:
            # The channel is fine; only the guest's network is not what a stranger needs.
            raise MachineError(err.message, remedy=err.remedy) from err

    def freeze(self) -> None:
        """Stop the VM's processors."""
        self.qmp.execute("stop", deadline=Deadline.after(_ORDER_S))

    def thaw(self) -> None:
        """Let them go on."""
        self.qmp.execute("cont", deadline=Deadline.after(_ORDER_S))

    def plug(self, *, connected: bool) -> None:
        """Give or take the carrier of the VM's network cards."""
        plug_network_cards(self.qmp, connected=connected)

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
        channel = self._open_channel()
        with self._explained(deadline, "no answer from the root command channel"):
            channel.wait_ready(deadline, self._check)
        self.transport = self._watched(channel)

    def _open_channel(self) -> SerialChannel:
        channel = SerialChannel.of_qemu(self._run_dir)
        self._stack.callback(channel.close)
        self._channel = channel
        return channel

    def _watched(self, channel: SerialChannel) -> WatchedTransport:
        return WatchedTransport(
            channel, lambda: self._obituary(wait_s=_LAST_WORDS_QUIET_S) if self._booted else None
        )

    def _settle(self, deadline: Deadline) -> None:
        with self._explained(deadline, "the boot did not settle"):
            settle(
                self.transport,
                machine=self._name,
                deadline=deadline,
                limits=self._limits,
                tell=self._news.tell,
                check=self._check,
            )
            if self._store_image:
                why_not = make_store_writable(self.transport, deadline=deadline)
                if why_not:
                    self.console.append(f"pytest-nixos: /nix/store stays read-only: {why_not}")

    def _explained(self, deadline: Deadline, what: str) -> contextlib.AbstractContextManager[None]:
        return explained(
            self._name,
            self.console,
            what,
            deadline,
            ended=lambda: self._process.wait_ended(_LAST_WORDS_QUIET_S),
            check=self._check,
        )

    def _with_evidence(self, error: BootError) -> BootError:
        """Ask a guest in emergency mode which units failed, if it answers soon."""
        if error.state not in _ANSWERING or self._channel is None:
            return error
        deadline = Deadline.after(_POST_MORTEM_S)
        with contextlib.suppress(TransportError):
            self._channel.wait_ready(deadline, self._check_process)
            return with_failed_units(error, ask_failed_units(self._channel, deadline=deadline))
        return error

    def _check_process(self) -> None:
        if self._process.has_ended:
            raise TransportError("QEMU ended", remedy="")

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
            raise ended_error(
                self._name, self.console, self._process.end_words, self._process.end_kind
            )

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
            remedy=remedy_for(*(t.kind for t in troubles), self._process.end_kind),
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
