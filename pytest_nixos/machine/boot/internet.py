"""Which units cannot start because the guest has no way out: told by their address, their journal
and their kind.

A machine of the plugin reaches nothing beyond its own link unless people ask for it, so that a unit
which orders a certificate or pulls an image fails there and says nothing about the host. Such a
unit is not judged; whatever else is wrong with one is a finding as ever. What decides:

- The last thing that the unit's own processes said before they gave up. A complaint that has
  nothing to do with a network, said after the last one that has, is what broke the unit.
- The address that was not reached: a name without a dot, or the guest itself, is no internet.
- The unit's kind (:data:`KINDS`), where its journal names no address or it simply hangs.

Units are named as nixpkgs 24.05 to 25.11 names them.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Self

import msgspec

from pytest_nixos.machine.boot.internet_words import (
    addresses,
    is_about_network,
    is_other_fault,
    is_outside,
    targets,
    urls,
)
from pytest_nixos.nix.config.declared import FileSystem
from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.nix.config.unit import Unit

__all__ = [
    "KINDS",
    "REMOTE_FILE_SYSTEMS",
    "InternetNeed",
    "NoWayOut",
    "UnitStart",
    "internet_need",
    "kind_of",
    "last_words",
    "last_words_command",
    "mount_unit",
    "remote_mounts",
]

#: File systems that live on another machine, by their type in fstab.
REMOTE_FILE_SYSTEMS = frozenset(
    {
        *("nfs", "nfs4", "cifs", "smb3", "sshfs", "fuse.sshfs", "ceph", "fuse.ceph", "glusterfs"),
        *("fuse.glusterfs", "davfs", "fuse.davfs2", "fuse.s3fs", "fuse.rclone", "rclone", "afs"),
    }
)

#: Services that ask the internet for what they do, by name, and what they ask for. A unit of such a
#: kind that hangs or times out waits for that; one that fails must still say so.
KINDS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), what)
    for pattern, what in (
        (
            r"acme-(?!selfsigned-|lockfiles|fixperms|setup|account-)[^/]+\.service",
            "asks an ACME server for a certificate",
        ),
        (r"(?:podman|docker)-[^/]+\.service", "runs an OCI container, whose image is pulled"),
        (r"ollama-model-loader\.service|ollama-pull[^/]*\.service", "pulls models"),
        (
            r"tailscaled?-autoconnect\.service|tailscaled-set\.service|netbird[^/]*\.service",
            "joins a network of its provider",
        ),
        (
            r"zerotierone\.service|cloudflared-tunnel-[^/]+\.service",
            "joins a network of its provider",
        ),
        (
            r"(?:chrony-wait|systemd-time-wait-sync|ntpdate|ntpd-wait|time-sync-wait)\.service",
            "waits for a time server",
        ),
        (
            r"(?:ddclient|inadyn|cloudflare-dyndns|duckdns|godns)[^/]*\.service",
            "tells its address to a DNS provider",
        ),
        (r"(?:restic-backups|borgbackup-job|kopia)[-.][^/]*service", "backs up to another machine"),
        (
            r"(?:clamav-freshclam|geoipupdate|nixos-upgrade|comin|flatpak-[^/]+)\.service",
            "downloads",
        ),
        (r"(?:github-runner|gitea-runner|gitlab-runner)[^/]*\.service", "asks its forge for work"),
    )
)

# How a unit ends that gave up by itself, or was given up (systemd.service(5), Result=).
_GAVE_UP = frozenset({"exit-code", "timeout", "start-limit-hit", "protocol"})
# systemd's own exit statuses: it could not even start the program (systemd.exec(5)).
_SYSTEMD_STATUS = range(200, 260)
_MOST_LINES = 100
_JOURNAL = (
    f"timeout 20 journalctl --boot --no-pager --quiet --lines={_MOST_LINES} --output=json "
    "--output-fields=MESSAGE,_PID,INVOCATION_ID,_SYSTEMD_INVOCATION_ID --unit="
)


class UnitStart(msgspec.Struct, frozen=True, kw_only=True):
    """How a unit's last start went, as systemd and the journal tell.

    :param active: ``ActiveState``: ``failed``, ``activating``, ...
    :param result: ``Result``; ``success`` while the start goes on.
    :param status: exit status of the main process (``ExecMainStatus``), 0 if there is none.
    :param said: what the unit's own processes said in that start, oldest first.
    """

    active: str
    result: str = "success"
    status: int = 0
    said: tuple[str, ...] = ()

    @property
    def hangs(self) -> bool:
        """Whether it has not come to an end, or was given up for that."""
        return self.active in ("activating", "reloading") or self.result == "timeout"


class InternetNeed(msgspec.Struct, frozen=True, kw_only=True):
    """A unit that cannot be judged without a way out.

    :param address: what it did not reach, ``""`` where that is not known.
    :param why: its own words, or its kind.
    :param said: whether it said so itself; else its kind and that it hangs tell.
    """

    unit: str
    address: str
    why: str
    said: bool = True

    def __str__(self) -> str:
        return f"{self.unit} ({self.address or self.why})"


class NoWayOut(msgspec.Struct, frozen=True, kw_only=True):
    """A guest that reaches nothing beyond its own link, and what its host declares.

    :param units: declared units by name.
    :param remote: mount unit to the machine that it mounts from.
    :param own_names: names of the guest itself.
    """

    units: Mapping[str, Unit] = msgspec.field(default_factory=dict)
    remote: Mapping[str, str] = msgspec.field(default_factory=dict)
    own_names: frozenset[str] = frozenset()

    @classmethod
    def of(cls, host: HostConfig) -> Self:
        """Take from a host what tells its needs."""
        mounts = remote_mounts(host.file_systems)
        return cls(
            units=host.units,
            remote={mount_unit(point): machine for point, machine in mounts.items()},
            own_names=frozenset({host.host_name}),
        )

    def need(self, unit: str, start: UnitStart) -> InternetNeed | None:
        """See :func:`internet_need`."""
        return internet_need(
            unit,
            start,
            declared=self.units.get(unit),
            remote=self.remote.get(unit, ""),
            own_names=self.own_names,
        )


def internet_need(
    name: str,
    start: UnitStart,
    *,
    declared: Unit | None = None,
    remote: str = "",
    own_names: Collection[str] = (),
) -> InternetNeed | None:
    """Tell what a unit that failed, or does not come up, needs of the internet; ``None`` where
    something else broke it or nothing says so.

    :param declared: the unit's own settings, where the host declares it.
    :param remote: of a mount, the machine that it mounts from; see :func:`remote_mounts`.
    :param own_names: names of the guest itself, and those that its ``/etc/hosts`` knows.
    """
    if not _may_be_network(start):
        return None
    local = frozenset(name.lower() for name in own_names)
    signs = [n for n, line in enumerate(start.said) if is_about_network(line)]
    found = _told(start.said, signs, declared, local)
    asked = found.address if found is not None else ""
    after = start.said[signs[-1] + 1 :] if signs else start.said
    # What it says of the address that it did not reach is the same complaint once more.
    told = [line for line in after if not (is_about_network(line) or (asked and asked in line))]
    if any(is_other_fault(line) for line in told):
        return None
    kind = f"mounts from {remote}" if remote else kind_of(name)
    if found is not None and found.address:
        return InternetNeed(unit=name, address=found.address, why=found.why)
    if found is not None and not found.is_local and kind:
        return InternetNeed(unit=name, address=remote, why=found.why)
    if found is None and kind and (start.hangs or remote):
        return InternetNeed(unit=name, address=remote, why=kind, said=False)
    return None


def kind_of(unit: str) -> str:
    """Return what a unit of this name asks of the internet, ``""`` where its name tells nothing."""
    return next((what for pattern, what in KINDS if pattern.fullmatch(unit)), "")


def remote_mounts(file_systems: Mapping[str, FileSystem]) -> Mapping[str, str]:
    """Return mount point to the machine that it is mounted from, of those on another machine."""
    found = {}
    for entry in file_systems.values():
        if entry.fs_type in REMOTE_FILE_SYSTEMS:
            device = (entry.device or "").removeprefix("//")
            device = device.partition("://")[2] or device.rpartition("@")[2]
            found[entry.mount_point] = re.split(r"[:/]", device)[0] or entry.fs_type
    return found


def mount_unit(mount_point: str) -> str:
    """Return the name of a mount's unit, as systemd-escape(1) makes it of a path."""
    path = "/".join(part for part in mount_point.split("/") if part)
    if not path:
        return "-.mount"
    escaped = re.sub(
        r"[^A-Za-z0-9:_./]",
        lambda found: "".join(f"\\x{byte:02x}" for byte in found[0].encode()),
        path,
    )
    escaped = re.sub(r"^\.", r"\\x2e", escaped)
    return f"{escaped.replace('/', '-')}.mount"


def last_words_command(unit: str) -> str:
    """Return the command that prints what :func:`last_words` reads."""
    return _JOURNAL + shlex.quote(unit)


def last_words(journal: str) -> tuple[str, ...]:
    """Read what a unit's own processes said in its last start, oldest first.

    :param journal: output of :func:`last_words_command`: JSON, one entry a line.
    """
    own = [
        (str(entry.get("_SYSTEMD_INVOCATION_ID") or ""), _message(entry.get("MESSAGE")))
        for entry in _entries(journal)
        # systemd's own words about the unit are no words of the unit.
        if entry.get("_PID") != "1"
    ]
    last = own[-1][0] if own else ""
    return tuple(
        line
        for start, message in own
        if start == last
        for line in message.splitlines()
        if line.strip()
    )


class _Told(msgspec.Struct, frozen=True, kw_only=True):
    """What the last message about the network says; `is_local` if it is about no internet."""

    address: str
    why: str
    is_local: bool = False


def _may_be_network(start: UnitStart) -> bool:
    if start.active in ("activating", "reloading"):
        return True
    return start.result in _GAVE_UP and start.status not in _SYSTEMD_STATUS


def _told(
    said: Sequence[str], signs: Sequence[int], declared: Unit | None, local: Collection[str]
) -> _Told | None:
    """Read the last message about the network."""
    if not signs:
        return None
    line = said[signs[-1]]
    why = line.strip()
    named = targets(line) or addresses(line)
    if named:
        outside = [name for name in named if is_outside(name, local)]
        return _Told(address=outside[0] if outside else "", why=why, is_local=not outside)
    # The message names nobody: what the unit was about to ask is told by its settings, or by what
    # it said before.
    more = (*_settings(declared), *reversed(said[: signs[-1]]))
    found = [name for text in more for name in urls(text) if is_outside(name, local)]
    return _Told(address=found[0] if found else "", why=why)


def _settings(declared: Unit | None) -> Iterable[str]:
    if declared is None:
        return ()
    return [
        value
        for section in declared.settings.values()
        for key, values in section.items()
        if key.startswith(("Exec", "Environment", "What"))
        for value in values
    ]


def _entries(text: str) -> Iterable[Mapping[str, Any]]:
    for line in text.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue  # cut off, or no JSON at all
        if isinstance(entry, dict):
            yield entry


def _message(value: object) -> str:
    """Read a message: text, or bytes as a list of numbers where it is no UTF-8."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(n, int) and 0 <= n <= 255 for n in value):
        return bytes(value).decode(errors="replace")
    return ""
