"""``host.socket``."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Any

from testinfra.modules.socket import Socket

from pytest_nixos.machine.command import CommandResult
from pytest_nixos.observe.base import observe
from pytest_nixos.observe.network import socket as observed

__all__ = ["NixosSocket", "parse_ss"]

_IPV4_ANY = "0.0.0.0"  # noqa: S104 - compared, not bound
_IPV6_ANY = "::"
_NOT_FOUND = 127  # the shell's exit status
_SYSTEM_PROGRAMS = "/run/current-system/sw/bin"
_LISTENING = frozenset({"LISTEN", "UNCONN"})


class NixosSocket(Socket):
    """Test listening sockets.

    Asks ``ss``, which NixOS keeps in the system's profile; where it is missing (a container without
    networking tools), ``/proc/net``. Unlike testinfra's, an address is also listened on when a
    wildcard socket of its family covers it, and clients are matched by the local address.
    """

    @classmethod
    def get_module_class(cls, _host: Any) -> type[NixosSocket]:
        return cls

    @property
    def is_listening(self) -> bool:
        """Return whether something listens.

        ``tcp://22`` needs all IPv4 *and* all IPv6 addresses (only IPv4 where the kernel has no
        IPv6); ``tcp://127.0.0.1:22`` is also true of a socket on 0.0.0.0; ``tcp://0.0.0.0:22``
        needs the wildcard.
        """
        found = set(self._iter_sockets(True))
        if self.protocol == "unix":
            return ("unix", self.host) in found
        v4 = (self.protocol, _IPV4_ANY, self.port) in found
        v6 = (self.protocol, _IPV6_ANY, self.port) in found
        if self.host is None:
            return v4 and (v6 or not self._has_ipv6())
        if (self.protocol, str(ipaddress.ip_address(self.host)), self.port) in found:
            return True
        return v6 if ":" in self.host else v4

    @property
    def clients(self) -> list[tuple[str, int] | None]:
        """Return the (address, port) of each connected client; for a Unix socket a list of None."""
        if self.protocol == "unix":
            return [None for s in self._iter_sockets(False) if s == ("unix", self.host)]
        return [
            (peer, peer_port)
            for protocol, address, port, peer, peer_port in self._connected()
            if (protocol, port) == (self.protocol, self.port) and self._covers(address)
        ]

    def _covers(self, address: str) -> bool:
        if self.host is None:
            return True
        if self.host in (_IPV4_ANY, _IPV6_ANY):
            return (":" in address) == (":" in self.host)
        return str(ipaddress.ip_address(self.host)) == address

    def _connected(self) -> Iterator[tuple[str, str, int, str, int]]:
        for found in self._iter_sockets(False):
            if found[0] != "unix":
                yield found

    def _iter_sockets(self, listening: bool) -> Iterator[tuple[Any, ...]]:
        """Yield (protocol, address, port), with the peer's address and port for connected
        sockets, or ("unix", path).
        """
        out = self.run(
            "PATH=$PATH:%s ss --numeric --no-header --tcp --udp --unix %s",
            _SYSTEM_PROGRAMS,
            "--listening" if listening else "--all",
        )
        if out.rc == _NOT_FOUND:
            yield from _from_proc(self._proc(), listening=listening)
            return
        assert out.rc == 0, f"Unexpected exit code {out.rc} for {out}"
        yield from parse_ss(out.stdout, listening=listening)

    def _proc(self) -> observed.Sockets:
        return observe(self._answer, observed.sockets())

    def _answer(self, script: str) -> CommandResult:
        out = self.run("bash -c %s", script)
        return CommandResult(
            command=out.command,
            exit_status=out.rc,
            stdout=out.stdout_bytes,
            stderr=out.stderr_bytes,
            duration_s=0.0,
        )

    def _has_ipv6(self) -> bool:
        return bool(self.run("test -e /proc/net/tcp6").rc == 0)

    def __repr__(self) -> str:
        if self.protocol == "unix":
            return f"<socket unix://{self.host}>"
        host = "" if self.host is None else f"{self.host}:"
        return f"<socket {self.protocol}://{host}{self.port}>"


def parse_ss(text: str, *, listening: bool) -> Iterator[tuple[Any, ...]]:
    """Read ``ss --numeric --no-header``: the listening sockets, or else the established ones.

    Netid State Recv-Q Send-Q Local:Port Peer:Port; Unix paths and their inodes are columns of their
    own.
    """
    for line in text.splitlines():
        fields = line.split()
        if len(fields) < 6 or (fields[1] in _LISTENING) != listening:
            continue
        netid, state, local, peer = fields[0], fields[1], fields[4], fields[5]
        if netid in ("u_str", "u_seq"):
            if listening or state == "ESTAB":
                yield "unix", local
        elif netid in ("tcp", "udp"):
            address, port = _split(local)
            if listening:
                for one in (_IPV6_ANY, _IPV4_ANY) if address == "*" else (address,):
                    yield netid, one, port
            elif state == "ESTAB":
                # For a connected unix or inet pair the peer follows the local endpoint.
                yield netid, address, port, *_split(peer)


def _split(endpoint: str) -> tuple[str, int]:
    """Take ``[fe80::1]%eth0:546``, ``127.0.0.53%lo:53`` or ``*:22`` apart; the scope is dropped."""
    address, _, port = endpoint.rpartition(":")
    address = address.partition("%")[0].strip("[]") if address != "*" else address
    if address.startswith("::ffff:") and "." in address:
        address = address.removeprefix("::ffff:")
    return address, int(port) if port.isdecimal() else 0


def _from_proc(found: observed.Sockets, *, listening: bool) -> Iterator[tuple[Any, ...]]:
    for s in found.inet:
        if listening and s.listening:
            yield s.protocol.value, s.address, s.port
            if s.dual_stack:
                yield s.protocol.value, _IPV4_ANY, s.port
        elif not listening and s.peer is not None:
            yield s.protocol.value, s.address, s.port, *s.peer
    for u in found.unix:
        if u.kind != "dgram" and (u.listening if listening else u.connected):
            yield "unix", u.path
