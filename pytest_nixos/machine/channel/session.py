"""One port of the channel: its stream, the session that both ends agreed on, and where they are
in it.
"""

from __future__ import annotations

from collections.abc import Callable

from pytest_nixos.errors import TransportError
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.channel.links import Link
from pytest_nixos.machine.channel.ports import Expired, PortStream
from pytest_nixos.machine.channel.protocol import (
    Answer,
    Refusal,
    Restarted,
    find_session,
    new_nonce,
    parse_reply,
    refusal_line,
    request_header,
    session_request,
)

__all__ = ["GRACE_S", "PortSession"]

#: A guest that is merely busy answers within this; one that does not is taken for hung.
GRACE_S = 10.0
_ASK_AGAIN_S = 5.0
_FLOW_S = 60.0


class PortSession:
    """One port: its stream, its session and the serial number of its last request."""

    def __init__(self, name: str, link: Link, alive: Callable[[], None]) -> None:
        self.name = name
        self.stream = PortStream(link, alive)
        self.session: str | None = None
        self.serial = 0
        # After a failure it is unknown how long the guest stays busy with the port, so it is used
        # last.
        self.in_step = True

    def ensure_session(self, deadline: Deadline) -> None:
        """Begin a session unless there is one and the guest has said nothing since."""
        if self.session is not None and self.stream.drain():
            self.session = None
        if self.session is None:
            self.begin_session(deadline)

    def begin_session(self, deadline: Deadline) -> bytes:
        """Agree with the guest on a new session, whatever either side thought before.

        :return: the end of what the guest said before.
        :raises Expired: if the guest does not answer by `deadline`.
        """
        nonce = new_nonce()
        self.stream.connect(deadline)
        while True:
            self.stream.send(session_request(nonce), deadline=deadline)
            try:
                said = self.stream.take(
                    lambda data: find_session(data, nonce), deadline=deadline.within(_ASK_AGAIN_S)
                )
            except Expired:
                if deadline.expired:
                    raise
            else:
                self.session = nonce
                self.in_step = True
                return said

    def forget_session(self, refusal: Refusal | None) -> None:
        """Let the next command begin a session; drop the connection unless both ends are in
        step.
        """
        self.session = None
        self.in_step = False
        if refusal is None or refusal.reason != "session":
            self.stream.disconnect()

    def send_request(self, text: bytes, stdin: bytes, deadline: Deadline) -> None:
        """Send a command; see :meth:`PortStream.send_request`."""
        self.serial += 1
        header = request_header(
            self._nonce(), self.serial, text_size=len(text), stdin_size=len(stdin)
        )
        self.stream.send_request(header + text, *((stdin,) if stdin else ()), deadline=deadline)

    def read_reply(self, deadline: Deadline) -> Answer | Refusal | Restarted:
        """Wait for the reply to the last request."""
        return self.stream.take(
            lambda data: parse_reply(data, self._nonce(), self.serial), deadline=deadline
        )

    def read_reply_while_it_flows(self) -> Answer | Refusal | Restarted:
        """Wait for the reply as long as bytes come, but not for ever: the command is over, its
        output may be long.
        """
        limit = Deadline.after(_FLOW_S)
        while True:
            had = len(self.stream.received)
            try:
                return self.read_reply(Deadline.after(GRACE_S))
            except Expired:
                if len(self.stream.received) == had or limit.expired:
                    raise

    def was_lost_in_restart(self, deadline: Deadline) -> bool:
        """Begin a session after the guest's server restarted; tell whether the last request is
        lost.

        The guest answers in order: a request that came after the restart is refused before the
        session is granted, and can be sent again.
        """
        refusal = refusal_line(self._nonce(), self.serial, "session")
        self.session = None
        return refusal not in self.begin_session(deadline)

    def _nonce(self) -> str:
        if self.session is None:
            raise TransportError(
                f"channel {self.name} has no session", remedy="report this as a bug of pytest-nixos"
            )
        return self.session
