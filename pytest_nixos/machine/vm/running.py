"""A started VM: its process, monitor, console and channel, and what must be undone at its end."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pytest_nixos.errors import BootError, MachineError, TransportError
from pytest_nixos.local.leftovers import end_marked_processes
from pytest_nixos.local.remove_tree import remove_tree
from pytest_nixos.local.sandbox import into_network_of, payload_pid
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.boot.news import BootNews
from pytest_nixos.machine.boot.post_mortem import with_evidence
from pytest_nixos.machine.boot.remedies import VM_REMEDIES
from pytest_nixos.machine.boot_signs import BootPhase
from pytest_nixos.machine.capabilities import BootsFrom, PortState, PulledDisk, Way
from pytest_nixos.machine.channel.transport import SerialChannel
from pytest_nixos.machine.command import Transport
from pytest_nixos.machine.console import Console, Trouble
from pytest_nixos.machine.lifetime import Lifetime
from pytest_nixos.machine.network.stand_in import HandedOver
from pytest_nixos.machine.picture import Picture
from pytest_nixos.machine.qemu.disks import plug_disk, pull_disk
from pytest_nixos.machine.qemu.forward import GATEWAY, forwarded_port
from pytest_nixos.machine.qemu.qmp import QmpMonitor, plug_network_cards, throttle_disks
from pytest_nixos.machine.qemu.screen import screendump
from pytest_nixos.machine.serial_process import SerialProcess
from pytest_nixos.machine.snapshot.clone import Clone
from pytest_nixos.machine.snapshot.migration import load_state, save_state
from pytest_nixos.machine.snapshot.quiesce import look_at_guest, make_store_writable, wake_guest
from pytest_nixos.machine.snapshot.record import GuestAtRest, Snapshot
from pytest_nixos.machine.spare.claim import Claimed
from pytest_nixos.machine.spare.handing import Handed, HandedPort
from pytest_nixos.machine.survey import Survey, View
from pytest_nixos.machine.vm.argv import disk_image, monitor_socket, script_paths
from pytest_nixos.machine.vm.backdoor import Backdoor
from pytest_nixos.machine.vm.outside import VmOutside
from pytest_nixos.machine.vm.plan import VmPlan
from pytest_nixos.machine.vm.stage_1_ssh import unlocked
from pytest_nixos.machine.vm.storage import VmStorage

__all__ = ["VmRunning"]

_POST_MORTEM_S = 8.0
_QUIT_S = 1.0
_FLUSH_S = 2.0
_LAST_WORDS_S = 0.5
_PANIC = "kernel panic"
_DISK_FULL = "host machine: disk full"
_ORDER_S = 10.0
_UNLOCK_S = 60.0


class VmRunning:
    """A started VM; made by :class:`VmBackend`."""

    def __init__(self, plan: VmPlan, news: BootNews) -> None:
        self.life = Lifetime(
            plan.name,
            news,
            program="QEMU",
            remedies=VM_REMEDIES,
            # Emergency mode after the boot may be what a test wanted; these two end any machine.
            deadly=frozenset({_PANIC, _DISK_FULL}),
            no_way_out=plan.no_way_out,
        )
        self.console: Console = news.console
        self.transport: Transport
        self.is_clone = False
        #: what a clone was started from
        self.restored_from: Snapshot | None = None
        self._plan = plan
        self._process: SerialProcess
        self._news = news
        self._channel: SerialChannel | None = None
        # How the guest stood, and when its clock stopped, in seconds since 1970.
        self._rests: tuple[GuestAtRest, float] | None = None
        self._backdoor: Backdoor | None = None
        self._outside = VmOutside.of(plan)
        self._plug_in(())
        self.storage = VmStorage(
            plan.run_dir,
            disk_image(plan.run_dir),
            plan.images,
            monitor=lambda: self.qmp,
            pid=lambda: self.pid if self.is_alive() else 0,
            await_end=lambda limit_s: self._process.wait_ended(limit_s),  # noqa: PLW0108 - it is replaced at each start,
        )

    @property
    def argv(self) -> tuple[str, ...]:
        """The run script with our arguments."""
        return tuple(self._plan.argv())

    @property
    def boots_from(self) -> BootsFrom:
        """What decides which generation comes up after a reboot."""
        return self._plan.boots_from

    @property
    def added_kernel_params(self) -> tuple[str, ...]:
        """What the guest's kernel is told beside what its host declares."""
        return self._plan.added_kernel_params

    @property
    def pid(self) -> int:
        """Process id of QEMU (the run script becomes it)."""
        outer = self._process.pid
        return payload_pid(outer) if outer and self._plan.sandbox is not None else outer

    @property
    def qmp_path(self) -> Path:
        """Socket of QEMU's monitor; :attr:`qmp` holds its only connection."""
        return self.qmp.path

    def boot(self, deadline: Deadline, *, make_disks: Callable[[], None] = lambda: None) -> None:
        """Start QEMU and wait until the root command channel answers and the boot has settled.

        :param make_disks: called once the run directory is there.
        """
        self._prepare()
        make_disks()
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
            channel.connect(deadline, self.life.check)
            load_state(self.qmp, snapshot.state, deadline=deadline)
            # The first command begins its port's session: one way to the guest fewer than asking
            # whether it is ready.
            self.transport = self.life.explain(channel)
            wake_guest(
                self.transport,
                snapshot.record.guest,
                saved_at_s=snapshot.record.saved_at_s,
                deadline=deadline,
            )
        except MachineError:
            self._process.wait_ended(_LAST_WORDS_S)
            self.life.check()
            raise
        self.life.has_come_up = True
        self.is_clone = True
        self.restored_from = snapshot

    def adopt(self, claimed: Claimed, *, deadline: Deadline) -> None:
        """Go on with a machine that another process has woken and stopped.

        :raises MachineError: if the guest does not answer, or is not as it was.
        """
        handed = claimed.handed
        process = claimed.process(self.console, self._plan.answer)
        self._process = process
        self.life.undo.callback(process.release)
        self.life.follow(process)
        self.life.undo.callback(process.stop, grace_s=self._plan.grace_s)
        process.start()
        for line in handed.lines:
            self.console.append(line.text)
        self.life.undo.callback(self.qmp.close)
        self.qmp.start()
        self.life.undo.callback(self._quit)
        ports = {
            name: (fd, port.session, port.serial) for name, (fd, port) in claimed.ports.items()
        }
        self._channel = channel = SerialChannel.of_handed(self._plan.run_dir, ports)
        self.life.undo.callback(channel.close)
        channel.connect(deadline, self.life.check)
        self.transport = self.life.explain(channel)
        self._rests = handed.guest, handed.paused_at_s
        self.rouse(deadline=deadline)
        self.life.has_come_up = True
        self.is_clone = True

    def rest(self, *, deadline: Deadline) -> None:
        """Stop the guest where it stands until :meth:`rouse`.

        :raises MachineError: if QEMU does not stop it, or it does not say how it stands.
        """
        guest = look_at_guest(self.transport, deadline=deadline)
        self._rests = guest, time.time()
        self.freeze()

    def rouse(self, *, deadline: Deadline) -> None:
        """Let a guest that rests go on, awake as a clone is; nothing where it does not rest.

        :raises MachineError: if it does not answer, or is not as it was.
        """
        if self._rests is None:
            return
        (guest, paused_at_s), self._rests = self._rests, None
        self.qmp.execute("cont", deadline=deadline)
        wake_guest(self.transport, guest, saved_at_s=paused_at_s, deadline=deadline)

    def set_aside(self, *, shown: int, deadline: Deadline) -> tuple[Handed, tuple[int, ...]]:
        """Stop the guest where it stands and let go of all connections to it, so that another process
        can go on with it; this one still owns it.

        :param shown: lines of the console that the other one knows.
        :return: what that one has to know, and the descriptors that it gets.
        :raises MachineError: if QEMU does not stop it.
        :raises OSError: if a connection is gone.
        """
        self.rest(deadline=deadline)
        assert self._channel is not None
        assert self._rests is not None
        guest, paused_at_s = self._rests
        self.qmp.close()
        terminal, ports = self._process.let_go(), self._channel.let_go()
        handed = Handed(
            run_dir=str(self._plan.run_dir),
            pid=self._process.pid,
            paused_at_s=paused_at_s,
            guest=guest,
            lines=self.console.since(shown),
            ports=tuple(
                HandedPort(name=name, session=session, serial=serial)
                for name, (_, session, serial) in ports.items()
            ),
        )
        return handed, (terminal, *(descriptor for descriptor, _, _ in ports.values()))

    @property
    def process(self) -> SerialProcess:
        """The process that was started: QEMU, or the sandbox around it."""
        return self._process

    def save(self, state: Path, *, deadline: Deadline) -> None:
        """Stop the guest and write QEMU's state to a file; :meth:`thaw` lets it go on."""
        save_state(self.qmp, state, deadline=deadline)

    def end(self, *, deadline: Deadline) -> None:
        """End QEMU in order, so that its disks are whole; what it left stays until :meth:`stop`."""
        self.life.has_come_up = False
        self.qmp.quit(deadline=deadline)
        self._process.wait_ended(deadline.remaining_s)
        self._process.stop(grace_s=self._plan.grace_s)

    def power_off(self, *, orderly: bool, deadline: Deadline) -> None:
        """Shut the guest down, or end QEMU at once as a loss of power would; the disk stays."""
        if orderly and self.is_alive():
            self.life.shut_down(self.transport, deadline=deadline)
        self._process.stop(grace_s=0.0)
        if self._channel is not None:
            self._channel.close()
        self.qmp.close()
        end_marked_processes("NIX_DISK_IMAGE", str(disk_image(self._plan.run_dir)))
        self.life.has_come_up = False

    def power_on(self, *, generation: int | None, deadline: Deadline) -> None:
        """Start the run script again, on the same disk.

        :raises MachineError: if a generation is asked for: a boot loader must be told before the
            reboot.
        """
        if generation is not None:
            raise MachineError(
                f"{self._plan.name}: a VM cannot be started in generation {generation} from outside",
                remedy="let its boot loader choose: Generations.reboot(into=...)",
            )
        self.console.begin_boot()
        self._outside = VmOutside.of(self._plan)
        self._plug_in(self.argv)
        self._start(deadline)

    def _plug_in(self, argv: Sequence[str], cwd: Path | None = None) -> None:
        sandbox = self._plan.sandbox
        confined = argv if sandbox is None or not argv else sandbox.argv(argv)
        self._process = SerialProcess(
            confined,
            env=self._plan.env,
            cwd=cwd or self._plan.run_dir,
            console=self.console,
            answer=self._answer,
        )
        self.life.follow(self._process)
        self.qmp = QmpMonitor(monitor_socket(self._plan.run_dir), on_event=self._on_qmp_event)

    def _answer(self, prompt: str) -> str:
        """Return what is typed at a prompt of the console; what stage 1 asks for is said over the
        network where it is listened for there.
        """
        typed, ssh = self._plan.answer(prompt), self._plan.stage_1_ssh
        if not typed or ssh is None or self.console.phase > BootPhase.STAGE_1:
            return typed
        limit = Deadline.after(self._plan.pace.limit(_UNLOCK_S))
        places = self._outside.by_network
        return "" if unlocked(ssh, places, self.qmp, self._news, deadline=limit) else typed

    def _switch_on(self) -> None:
        if self._plan.channel_script and self._backdoor is None:
            self._backdoor = Backdoor(self._plan.run_dir, self._plan.channel_script)
            self.life.undo.enter_context(self._backdoor)
        self.life.undo.callback(self._process.stop, grace_s=self._plan.grace_s)
        self._process.start()
        self.life.undo.callback(self.qmp.close)
        self.qmp.start()
        self.life.undo.callback(self._quit)

    def _start(self, deadline: Deadline) -> None:
        self._switch_on()
        try:
            self._connect(deadline)
            self.life.answers()
            self.life.settle(self.transport, self._plan.limits, deadline=deadline)
            self._open_store(deadline)
        except BootError as err:
            raise self._with_evidence(err) from err.__cause__
        self.life.has_come_up = True

    def is_alive(self) -> bool:
        """Whether QEMU still runs."""
        return self._process.pid != 0 and not self._process.has_ended

    def probe_tcp(self, ports: Sequence[int], *, deadline: Deadline) -> Mapping[int, PortState]:
        """Try TCP ports of the guest from its own network, the first of them where it is on several,
        beside QEMU's user network.
        """
        return self._outside.probe_tcp(self.transport, ports, deadline=deadline)

    def survey(self, wanted: Survey, *, deadline: Deadline) -> tuple[View, ...]:
        """Try what `wanted` names by both families, on each of QEMU's user networks that the guest
        has an address on.
        """
        return self._outside.survey(self.transport, wanted, deadline=deadline)

    @property
    def outside_address(self) -> str:
        """From where the guest sees connections of :meth:`way_to` come."""
        return GATEWAY

    @contextlib.contextmanager
    def way_to(self, port: int, *, deadline: Deadline) -> Iterator[Way]:
        """Let QEMU's user network pass connections on, from a port that is there for the while."""
        network, guest = self._outside.first_network(self.transport, deadline=deadline)
        with forwarded_port(self.qmp, network, guest, port, deadline=deadline) as here:
            yield Way(prefix=into_network_of(self.pid), host="127.0.0.1", port=here)

    def freeze(self) -> None:
        """Stop the VM's processors."""
        self.qmp.execute("stop", deadline=Deadline.after(self._plan.pace.limit(_ORDER_S)))

    def thaw(self) -> None:
        """Let them go on."""
        self.qmp.execute("cont", deadline=Deadline.after(self._plan.pace.limit(_ORDER_S)))

    def plug(self, *, connected: bool) -> None:
        """Give or take the carrier of the VM's network cards."""
        plug_network_cards(self.qmp, connected=connected)

    def throttle(self, *, operations_per_s: int) -> None:
        """Let each disk do so many reads and writes a second, ``0`` for as many as it can."""
        throttle_disks(self.qmp, operations_per_s=operations_per_s)

    def screen(self) -> Picture:
        """Return what the VM's first screen shows; on a text console that is its text."""
        # QEMU's sandbox may write here alone.
        shot = self._plan.run_dir / "screen.ppm"
        try:
            limit = Deadline.after(self._plan.pace.limit(_ORDER_S))
            return screendump(self.qmp, shot, deadline=limit)
        finally:
            shot.unlink(missing_ok=True)

    def pull_disk(self, disk: str) -> PulledDisk:
        """Take a SCSI disk out without a warning."""
        return pull_disk(self.qmp, disk)

    def plug_disk(self, pulled: PulledDisk) -> None:
        """Put a disk back."""
        plug_disk(self.qmp, pulled)

    def stop(self) -> None:
        """End QEMU and remove everything that it left; never raises, safe to call twice."""
        self.life.stop()

    def _prepare(self) -> None:
        self._plan.run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        before = {path.name for path in self._plan.run_dir.iterdir()}
        self.life.undo.callback(_remove_new, self._plan.run_dir, before)
        image = str(disk_image(self._plan.run_dir))
        self.life.undo.callback(end_marked_processes, "NIX_DISK_IMAGE", image)
        paths = script_paths(self._plan.run_dir)
        for name in ("TMPDIR", "SHARED_DIR"):
            paths[name].mkdir(mode=0o700, exist_ok=True)
        if served_by := self._plan.sandbox and self._plan.sandbox.served_by:
            self.life.undo.callback(HandedOver(served_by).close)

    def _connect(self, deadline: Deadline) -> None:
        channel = self._open_channel()
        with self.life.explained(deadline, "no answer from the root command channel"):
            channel.wait_ready(deadline, self.life.check)
        self.transport = self.life.explain(channel)

    def _open_store(self, deadline: Deadline) -> None:
        if not self._plan.store_image:
            return
        with self.life.explained(deadline, "the store was not made writable"):
            why_not = make_store_writable(self.transport, deadline=deadline)
        if why_not:
            self.console.append(f"pytest-nixos: /nix/store stays read-only: {why_not}")

    def _open_channel(self) -> SerialChannel:
        channel = SerialChannel.of_qemu(self._plan.run_dir)
        self.life.undo.callback(channel.close)
        self._channel = channel
        return channel

    def _with_evidence(self, error: BootError) -> BootError:
        """Ask a guest in emergency mode which units failed, if it answers soon."""
        limit_s = self._plan.pace.limit(_POST_MORTEM_S)
        return with_evidence(error, self._channel, limit_s=limit_s, alive=self._check_process)

    def _check_process(self) -> None:
        if self._process.has_ended:
            raise TransportError("QEMU ended", remedy="")

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
        if self.is_alive() and self.qmp.quit(
            deadline=Deadline.after(self._plan.pace.limit(_QUIT_S))
        ):
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
