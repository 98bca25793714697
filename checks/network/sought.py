"""Addresses of the machine itself that services are told to reach: of a proxy's backend, a database, a
target of a monitor.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterator, Mapping, Sequence

import msgspec

from pytest_nixos import Unit, observe

__all__ = [
    "Sought",
    "is_answered",
    "listens_later",
    "nearest_port",
    "remedy_of",
    "runs_containers",
    "sought_by",
    "who_names",
]

_HOST = r"localhost|127(?:\.\d{1,3}){3}|\[::1\]"
_LOCAL = rf"(?P<host>{_HOST}):(?P<port>\d{{1,5}})(?![\d.])"
# Whatever has a scheme is reached; what only waits there is not written so.
_URL = re.compile(rf"\b(?P<scheme>[a-z][a-z0-9+.-]*)://(?:[^\s/@\"'<>,;]*@)?{_LOCAL}")
_SOCKET = re.compile(r"(?:\b[a-z]+_pass\s+|\bserver\s+|://)unix:/*(?P<path>/[^\s;:\"']+)")
# nginx (ngx_http_upstream_module, ngx_http_fastcgi_module), HAProxy and Caddy.
_BACKEND = re.compile(
    rf"\b(?:(?:fastcgi|uwsgi|scgi|memcached)_pass|reverse_proxy|server(?:[ \t]+[\w.-]+)?)[ \t]+{_LOCAL}"
)
# Prometheus and what takes its configuration: scrape_configs.static_configs.
_TARGETS = re.compile(r"\btargets\"?\s*:\s*(?:\[(?P<flow>[^\]]*)\]|(?P<block>(?:\n\s*-\s*\S+)+))")
_TARGET = re.compile(rf"(?<![\w./-]){_LOCAL}")
# What is named for somebody else to come from or to be sent to, or to wait at.
_NOT_REACHED = re.compile(
    r"origin|cors|redirect|callback|external|public|refer|listen|bind|advertis|allow|issuer|homepage"
    r"|(?:root|site|app|web|server|instance|canonical)_?url|domain",
    re.IGNORECASE,
)
_KEY_CHARS = 100
_STATEMENT = re.compile(r"[\n;{}]")
_NO_STREAM = frozenset({"udp", "unix", "quic", "dns", "ntp", "syslog", "statsd"})
# Before the number of a port on which something listens.
_OF_LISTENER = r"port|listen|bind|addr|:"
_RUNS_CONTAINERS = re.compile(r"/(?:docker|podman|nerdctl)\b")


class Sought(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """An address that a service is told to reach.

    :param where: the file that names it, or the directive of the unit.
    :param host: as it is written; ``""`` for a Unix socket.
    :param path: of a Unix socket.
    :param variable: of the unit's environment that holds it, with the value; ``""`` elsewhere.
    """

    unit: str
    where: str
    host: str = ""
    port: int = 0
    path: str = ""
    variable: str = ""
    value: str = ""

    @property
    def address(self) -> str:
        """The address as people write it."""
        return self.path or f"{self.host}:{self.port}"


def sought_by(unit: Unit, files: Sequence[observe.ReadFile]) -> Iterator[Sought]:
    """Yield what a service is told to reach on its own machine.

    :param files: as :func:`~pytest_nixos.observe.read_files` gives them.
    """
    for key, values in unit.settings.get("Service", {}).items():
        for value in values:
            name, equals, rest = value.strip("\"'").partition("=")
            variable = name if key == "Environment" and equals and name.isidentifier() else ""
            for found in _in_text(value):
                yield msgspec.structs.replace(
                    found, unit=unit.name, where=f"{key}=", variable=variable, value=rest
                )
    for file in files:
        for found in _in_text(file.text):
            yield msgspec.structs.replace(found, unit=unit.name, where=file.path)


def is_answered(sought: Sought, sockets: observe.Sockets) -> bool:
    """Whether something listens there."""
    if sought.path:
        path = sought.path.removeprefix("/var") if "/var/run/" in sought.path else sought.path
        return any(s.path.removeprefix("/var") == path for s in sockets.unix)
    wanted = {"localhost": ("127.0.0.1", "::1")}.get(sought.host, (sought.host.strip("[]"),))
    listening = [s for s in sockets.listening(observe.Protocol.TCP) if s.port == sought.port]
    return any(_takes(socket, address) for socket in listening for address in wanted)


def who_names(
    sought: Sought,
    services: Mapping[str, Unit],
    files: Mapping[str, Sequence[observe.ReadFile]],
    clients: Collection[str] = (),
) -> Sequence[str]:
    """Return the other services that have something to do with an address.

    :param files: what each service reads, as :func:`~pytest_nixos.observe.read_files` gives it.
    :param clients: units that are told to reach it: that a file of theirs names it says no more.
    """
    listening = _listening_at(sought)
    return [
        name
        for name, unit in services.items()
        if name != sought.unit
        and (
            _names(unit, sought)
            or (name not in clients and any(listening.search(file.text) for file in files[name]))
        )
    ]


def runs_containers(unit: Unit) -> bool:
    """Whether a unit starts a container, whose ports may be passed on without a listener."""
    return any(_RUNS_CONTAINERS.search(text) for text in observe.started_texts(unit))


def listens_later(unit: Unit, state: observe.UnitState) -> bool:
    """Whether a unit that does not run now is there for something that comes later: a timer, a client."""
    return not state.is_failed and (
        bool(state.get("TriggeredBy")) or unit.setting("Service", "Type")[-1:] == ("oneshot",)
    )


def nearest_port(sought: Sought, listening: Collection[int], others: Collection[int]) -> int:
    """Return the port that was probably meant, 0 where nobody can tell: one that listens, that nobody
    else seeks, and that differs in a digit or in the order of two.

    :param listening: ports on which something listens that the machine can reach itself.
    :param others: ports that services seek and find.
    """
    written = str(sought.port)
    near = [port for port in listening if port not in others and _nearly(written, str(port))]
    return near[0] if len(near) == 1 else 0


def remedy_of(sought: Sought, meant: int, idle: Sequence[str] = ()) -> str:
    """Return module text with the port that was meant, or what to do.

    :param idle: units that have to do with the address and do not run.
    """
    if idle:
        return "\n".join(
            f"# {sought.unit} needs {name}: see why that does not run, journalctl -b -u {name}"
            for name in idle
        )
    if not meant:
        return f"# {sought.unit}: have a service listen on {sought.address}, or correct what {sought.where} names."
    right = f"{sought.host}:{meant}"
    if not sought.variable:
        return f"# {sought.unit}: write {right} in place of {sought.address} in the option that makes {sought.where}."
    value = msgspec.json.encode(sought.value.replace(sought.address, right)).decode()
    stem = sought.unit.removesuffix(".service")
    return f'systemd.services."{stem}".environment.{sought.variable} = lib.mkForce {value};'


def _in_text(text: str) -> Iterator[Sought]:
    for match in (*_URL.finditer(text), *_BACKEND.finditer(text)):
        if match.groupdict().get("scheme") not in _NO_STREAM and not _is_elsewhere(text, match):
            yield _sought(match)
    for targets in _TARGETS.finditer(text):
        yield from (_sought(m) for m in _TARGET.finditer(targets["flow"] or targets["block"]))
    for match in _SOCKET.finditer(text):
        if not _is_elsewhere(text, match):
            yield Sought(unit="", where="", path=match["path"])


def _sought(match: re.Match[str]) -> Sought:
    return Sought(unit="", where="", host=match["host"], port=int(match["port"]))


def _is_elsewhere(text: str, match: re.Match[str]) -> bool:
    """Whether the words before an address say that it is not for the service to reach."""
    before = text[max(0, match.start() - _KEY_CHARS) : match.start()]
    return bool(_NOT_REACHED.search(_STATEMENT.split(before)[-1]))


def _takes(socket: observe.InetSocket, address: str) -> bool:
    if socket.is_wildcard:
        return (
            ":" in socket.address
            if ":" in address
            else ":" not in socket.address or socket.dual_stack
        )
    return ipaddress.ip_address(socket.address) == ipaddress.ip_address(address)


def _nearly(written: str, other: str) -> bool:
    if len(written) != len(other):
        return False
    differ = [i for i, (one, two) in enumerate(zip(written, other, strict=True)) if one != two]
    return len(differ) == 1 or sorted(written) == sorted(other)


def _names(unit: Unit, sought: Sought) -> bool:
    if sought.path:
        made = (f"/run/{name}/" for name in unit.words("Service", "RuntimeDirectory"))
        path = sought.path.removeprefix("/var")
        return sought.path in unit.needed_paths or path.startswith(tuple(made))
    number = re.compile(rf"(?<![\d.]){sought.port}(?![\d.])")
    service = unit.settings.get("Service", {})
    lines = (value for values in service.values() for value in values)
    return any(number.search(text) for text in (*lines, *observe.started_texts(unit)))


def _listening_at(sought: Sought) -> re.Pattern[str]:
    """Return what a file has that tells a service to listen there."""
    address = (
        re.escape(sought.path)
        if sought.path
        else rf"(?:{_OF_LISTENER})[^\n\d]{{0,20}}{sought.port}"
    )
    return re.compile(rf"{address}(?![\w.])", re.IGNORECASE)
