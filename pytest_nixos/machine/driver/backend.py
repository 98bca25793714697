"""The test-driver backend: a machine that a NixOS test has started, and goes on with afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pytest_nixos.errors import Unanswerable
from pytest_nixos.local.timing import Deadline, poll
from pytest_nixos.machine.base import BackendName, MachineSpec
from pytest_nixos.machine.boot.events import BootListener, ignore_boot_event
from pytest_nixos.machine.boot.internet import NoWayOut
from pytest_nixos.machine.boot.news import BootNews
from pytest_nixos.machine.boot.remedies import Remedies
from pytest_nixos.machine.boot.settle import SettleLimits
from pytest_nixos.machine.capabilities import PortState
from pytest_nixos.machine.command import Transport
from pytest_nixos.machine.driver.transport import DriverTransport
from pytest_nixos.machine.lifetime import Lifetime

__all__ = ["DriverBackend", "DriverRunning"]

_INTERVAL_S = 0.05
_REMEDIES = Remedies(default="read the machine's console in the log of the NixOS test")


class _Driver:
    """The test driver as what the machine lives in: it is gone when it answers no more."""

    end_kind = "answers no more"

    def __init__(self, transport: DriverTransport) -> None:
        self._transport = transport

    @property
    def has_ended(self) -> bool:
        return bool(self._transport.broken)

    @property
    def end_words(self) -> str:
        return f"its answers: {self._transport.broken}"

    def wait_ended(self, limit_s: float) -> bool:
        return bool(
            poll(
                lambda: self.has_ended or None,
                deadline=Deadline.after(limit_s),
                interval_s=_INTERVAL_S,
            )
        )


class DriverBackend:
    """Takes over a machine that a NixOS test has started; stops and changes nothing there.

    :param path: where the test driver listens.
    """

    name = BackendName.TEST_DRIVER

    def __init__(self, path: Path, on_event: BootListener = ignore_boot_event) -> None:
        self._path = path
        self._on_event = on_event

    def start(self, spec: MachineSpec, *, deadline: Deadline) -> DriverRunning:
        """Wait until the boot of the machine has settled.

        :raises BootError: if it does not come up.
        :raises TransportError: if there is no driver.
        """
        running = DriverRunning(spec, BootNews(spec.host.name, self._on_event), self._path)
        with running.life.stopped_on_error():
            running.boot(SettleLimits().at(spec.pace), deadline)
        return running


class DriverRunning:
    """A machine of a NixOS test; made by :class:`DriverBackend`.

    Its console stays empty: the driver reads it, and it stands in the test's log.
    """

    def __init__(self, spec: MachineSpec, news: BootNews, path: Path) -> None:
        self.console = news.console
        self.transport: Transport
        self.life = Lifetime(
            spec.host.name,
            news,
            program="the test driver",
            remedies=_REMEDIES,
            no_way_out=NoWayOut.of(spec.host),
        )
        self._channel = DriverTransport(path, name=spec.host.name)
        self._name = spec.host.name
        self.life.follow(_Driver(self._channel))

    def boot(self, limits: SettleLimits, deadline: Deadline) -> None:
        """Connect, and wait until the boot has settled; the driver itself waits for its shell."""
        self._channel.connect()
        self.life.undo.callback(self._channel.close)
        with self.life.explained(deadline, "no answer from the test driver's shell"):
            self._channel.run("true", deadline=deadline)
        self.transport = self.life.explain(self._channel)
        self.life.answers()
        self.life.settle(self.transport, limits, deadline=deadline)
        self.life.has_come_up = True

    def is_alive(self) -> bool:
        """Whether the driver still answers."""
        return not self.life.has_ended

    def probe_tcp(self, ports: Sequence[int], *, deadline: Deadline) -> Mapping[int, PortState]:  # noqa: ARG002 - nobody can
        """Refuse.

        :raises Unanswerable: always: the networks of a NixOS test are the driver's.
        """
        raise Unanswerable(
            f"{self._name}: nobody of ours stands on the networks of a NixOS test",
            remedy="try its ports from another node of the test, or judge it with --nixos-test",
        )

    def stop(self) -> None:
        """Leave the machine to its test; never raises, safe to call twice."""
        self.life.stop()
