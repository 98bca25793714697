"""The root command channel: a few ports, served by bash in the guest (virtserialports of QEMU,
or named pipes of a container).

Nothing but what every NixOS system has is needed there: bash, coreutils and systemd. Each command
runs in a process group of its own; several threads share a few ports; a port that lost step is
taken through a new session, so that stale bytes can never be taken for an answer.
"""

from __future__ import annotations

import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

from pytest_nixos.errors import CommandTimeout, NoAnswerError, TransportError
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.channel.links import Link, SocketLink
from pytest_nixos.machine.channel.ports import Expired
from pytest_nixos.machine.channel.protocol import (
    Answer,
    Refusal,
    Restarted,
    guest_script,
    kill_request,
    parse_kill_reply,
    wire_text,
)
from pytest_nixos.machine.channel.session import GRACE_S, PortSession
from pytest_nixos.machine.command import CommandResult, short

__all__ = ["PORTS", "SerialChannel", "guest_script"]

# Port names are what the guest's script looks for.
_NAME = "pytest-nixos"
_BUS = "pytest-nixos-serial"
_WORKERS = 4
#: Names of the ports of a machine.
PORTS = ("control", *(str(index) for index in range(_WORKERS)))
_KILL_AGAIN_S = 0.3


class SerialChannel:
    """A :class:`~pytest_nixos.machine.command.Transport` over a few ports.

    :param links: what carries each port's bytes, by the names in :data:`PORTS`.
    """

    def __init__(self, links: Mapping[str, Link]) -> None:
        self._alive: Callable[[], None] = _take_for_alive
        self._closed = False
        self._links = links
        control, *workers = (PortSession(name, links[name], self._check) for name in PORTS)
        self._control = control
        self._control_lock = threading.Lock()
        self._workers = tuple(workers)
        self._idle = deque(self._workers)
        self._waiting: deque[object] = deque()
        self._returned = threading.Condition()

    @classmethod
    def of_qemu(cls, run_dir: Path) -> Self:
        """Make the channel of a VM.

        :param run_dir: the machine's directory, as given to :meth:`qemu_argv`.
        """
        return cls({name: SocketLink(_socket(run_dir, name)) for name in PORTS})

    @classmethod
    def of_handed(cls, run_dir: Path, ports: Mapping[str, tuple[int, str | None, int]]) -> Self:
        """Make the channel of a VM that another process has let go of.

        :param ports: by name, as :meth:`let_go` gave them; the descriptors are this one's now.
        """
        links = {
            name: SocketLink(_socket(run_dir, name), socket.socket(fileno=descriptor))
            for name, (descriptor, _, _) in ports.items()
        }
        channel = cls(links)
        for port in (channel._control, *channel._workers):
            _, port.session, port.serial = ports[port.name]
        return channel

    def let_go(self) -> dict[str, tuple[int, str | None, int]]:
        """Give the channel up for another process to go on with, between two commands.

        :return: of each port its descriptor, its session and the serial number of its last request.
        :raises OSError: if it is not connected to a VM.
        """
        found = {}
        for port in (self._control, *self._workers):
            # What the guest said unasked is nobody's answer.
            session = None if port.stream.drain() else port.session
            link = self._links[port.name]
            if not isinstance(link, SocketLink):
                raise OSError(f"{link.name}: is no socket")
            found[port.name] = (link.let_go(), session, port.serial)
        self._closed = True
        return found

    @staticmethod
    def qemu_argv(run_dir: Path) -> tuple[str, ...]:
        """Build the QEMU arguments that give a machine its ports.

        :param run_dir: a directory without a comma in its path, see ``check_run_dir``.
        """
        argv = ["-device", f"virtio-serial-pci,id={_BUS}"]
        for name in PORTS:
            argv += [
                "-chardev",
                f"socket,id={_NAME}.{name},path={_socket(run_dir, name)},server=on,wait=off",
                "-device",
                f"virtserialport,bus={_BUS}.0,chardev={_NAME}.{name},name={_NAME}.{name}",
            ]
        return tuple(argv)

    def connect(self, deadline: Deadline, alive: Callable[[], None]) -> None:
        """Connect all ports and say nothing yet: a guest that is restored then finds its ports
        as they were.

        :raises TransportError: if QEMU does not offer them by `deadline`.
        """
        self._alive = alive
        try:
            with self._control_lock:
                self._control.stream.connect(deadline)
            for port in self._workers:
                port.stream.connect(deadline)
        except Expired as err:
            raise TransportError(
                f"the machine did not offer its root command channel within {deadline.limit_s:g} s",
                remedy="read the console for what QEMU said",
            ) from err

    def wait_ready(self, deadline: Deadline, alive: Callable[[], None]) -> None:
        """Wait until the guest serves the channel.

        :param alive: called from now on in every wait; raises if the machine has ended.
        :raises TransportError: if the guest does not answer by `deadline`.
        """
        self._alive = alive
        try:
            with self._control_lock:
                self._control.begin_session(deadline)
            port = self._borrow(deadline)
            try:
                port.begin_session(deadline)
            finally:
                self._give_back(port)
        except Expired as err:
            raise TransportError(
                f"the guest's root command channel did not answer within {deadline.limit_s:g} s",
                remedy="read the console: pytest-nixos-channel.service starts before sysinit.target",
            ) from err

    def run(self, command: str, *, deadline: Deadline, stdin: bytes = b"") -> CommandResult:
        """Run `command` with ``bash -c`` semantics as root in the guest's own environment.

        While a guest reboots this waits for its return; a command that a reboot cut off is an
        error.

        :raises CommandTimeout: if it does not end by `deadline`; its process group has been killed.
        :raises NoAnswerError: if the guest says nothing at all.
        :raises TransportError: if the machine ended, or had no room for the output.
        """
        text = wire_text(command)
        started_s = time.monotonic()
        port = self._borrow(deadline)
        try:
            answer = self._exchange(port, command, text, stdin, deadline)
        except CommandTimeout:
            raise
        except BaseException:
            # Ctrl-C too: the guest's command may still run, so the two ends are out of step.
            port.forget_session(None)
            raise
        finally:
            self._give_back(port)
        if answer.overflowed:
            raise TransportError(
                f"{short(command)}: the guest had no room in /run for all of its output"
                f" ({len(answer.stdout)} + {len(answer.stderr)} bytes came)",
                remedy="redirect it to a file and copy that, or raise boot.runSize or the memory",
            )
        return CommandResult(
            command=command,
            exit_status=answer.exit_status,
            stdout=answer.stdout,
            stderr=answer.stderr,
            duration_s=time.monotonic() - started_s,
        )

    def close(self) -> None:
        """Give up the channel; commands under way and further calls raise TransportError."""
        self._closed = True
        with self._returned:
            for port in self._idle:
                port.stream.disconnect()
            self._returned.notify_all()
        for port in (*self._workers, self._control):
            port.stream.shut()
        with self._control_lock:
            self._control.stream.disconnect()

    def _exchange(
        self, port: PortSession, command: str, text: bytes, stdin: bytes, deadline: Deadline
    ) -> Answer:
        while True:
            try:
                port.ensure_session(deadline)
            except Expired as err:
                raise _hung(command, deadline) from err
            try:
                port.send_request(text, stdin, deadline)
                reply = port.read_reply(deadline)
            except Expired as err:
                raise self._time_out(port, command, deadline) from err
            if isinstance(reply, Answer):
                return reply
            if isinstance(reply, Restarted):
                if self._was_lost(port, command, deadline):
                    raise _cut_off(command)
                continue
            port.forget_session(reply)
            if reply.reason != "session":
                raise _refused(command, reply)

    def _was_lost(self, port: PortSession, command: str, deadline: Deadline) -> bool:
        try:
            return port.was_lost_in_restart(deadline)
        except Expired as err:
            raise _hung(command, deadline) from err

    def _time_out(self, port: PortSession, command: str, deadline: Deadline) -> TransportError:
        """Kill the request that `port` waits for, and make the error of it."""
        try:
            reply = self._kill(port)
        except Expired:
            port.forget_session(None)
            return _hung(command, deadline)
        if not isinstance(reply, Answer):
            port.forget_session(reply if isinstance(reply, Refusal) else None)
        return CommandTimeout(
            f"{short(command)}: still running after {deadline.limit_s:g} s, killed",
            remedy="look at what it waits for, or raise its timeout",
            stdout=reply.stdout if isinstance(reply, Answer) else b"",
            stderr=reply.stderr if isinstance(reply, Answer) else b"",
        )

    def _kill(self, port: PortSession) -> Answer | Refusal | Restarted:
        grace = Deadline.after(GRACE_S)
        while not self._kill_once(port, grace):
            # Not started yet, or already over: the reply tells.
            try:
                return port.read_reply(Deadline.after(_KILL_AGAIN_S))
            except Expired:
                if grace.expired:
                    raise
        return port.read_reply_while_it_flows()

    def _kill_once(self, port: PortSession, grace: Deadline) -> bool:
        def parse(data: bytearray) -> tuple[bool, int] | None:
            return parse_kill_reply(data, nonce, int(port.name), port.serial)

        with self._control_lock:
            self._control.ensure_session(grace)
            nonce = self._control.session or ""
            try:
                request = kill_request(nonce, int(port.name), port.serial)
                self._control.stream.send(request, deadline=grace)
                return self._control.stream.take(parse, deadline=grace)
            except Expired:
                self._control.forget_session(None)
                raise

    def _borrow(self, deadline: Deadline) -> PortSession:
        # First come, first served: a bare condition lets one busy thread starve the others.
        turn = object()
        with self._returned:
            self._waiting.append(turn)
            try:
                while not self._idle or self._waiting[0] is not turn:
                    self._check_open()
                    if deadline.expired:
                        raise _busy(deadline)
                    self._returned.wait(deadline.remaining_s)
                self._check_open()
                # Take turns: the guest prepares a port for its next command while another one is
                # used.
                port = next((port for port in self._idle if port.in_step), self._idle[0])
                self._idle.remove(port)
                return port
            finally:
                self._waiting.remove(turn)
                self._returned.notify_all()

    def _give_back(self, port: PortSession) -> None:
        with self._returned:
            if self._closed:
                port.stream.disconnect()
            self._idle.append(port)
            self._returned.notify_all()

    def _check(self) -> None:
        self._check_open()
        self._alive()

    def _check_open(self) -> None:
        if self._closed:
            raise TransportError(
                "the root command channel is closed",
                remedy="use the machine only while it runs",
            )


def _take_for_alive() -> None:
    """Stand in until :meth:`SerialChannel.wait_ready` says how to tell."""


def _socket(run_dir: Path, name: str) -> Path:
    return run_dir / f"channel-{name}.sock"


def _hung(command: str, deadline: Deadline) -> NoAnswerError:
    return NoAnswerError(
        f"{short(command)}: the guest does not answer (limit {deadline.limit_s:g} s): hung?",
        remedy="read the end of the machine's console",
    )


def _busy(deadline: Deadline) -> CommandTimeout:
    return CommandTimeout(
        f"all {_WORKERS} channels to the guest were busy for {deadline.limit_s:g} s",
        remedy="run fewer commands at once on one machine, or raise the timeout",
    )


def _cut_off(command: str) -> TransportError:
    return TransportError(
        f"{short(command)}: the guest rebooted, or the channel's server in it restarted,"
        " while the command ran",
        remedy="read the console; after a deliberate reboot run the next command",
    )


def _refused(command: str, refusal: Refusal) -> TransportError:
    if refusal.reason == "spool":
        return TransportError(
            f"{short(command)}: not run, the guest has no room in /run for its input",
            remedy="send less at once, or raise boot.runSize or the memory",
        )
    return TransportError(
        f"{short(command)}: not run, it came to the guest incomplete ({refusal.reason})",
        remedy="run it again; if that fails too, read the console",
    )
