"""Main processes of units: what they run, and what holds them back, read from the kernel and not
from the unit.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pytest_nixos.observe.base import Probe, ProbeOutput
from pytest_nixos.observe.filesystems.mount import MountTable, parse_mountinfo
from pytest_nixos.observe.systemd.unit import askable_units
from pytest_nixos.observe.text import whole
from pytest_nixos.observe.unit_table import UnitQuery

__all__ = [
    "CAPABILITIES",
    "ProcessFacts",
    "ProtectHome",
    "ProtectSystem",
    "SeccompMode",
    "capability_names",
    "process_facts",
]

#: Names by number, include/uapi/linux/capability.h.
CAPABILITIES = (
    "chown", "dac_override", "dac_read_search", "fowner", "fsetid", "kill", "setgid", "setuid",
    "setpcap", "linux_immutable", "net_bind_service", "net_broadcast", "net_admin", "net_raw",
    "ipc_lock", "ipc_owner", "sys_module", "sys_rawio", "sys_chroot", "sys_ptrace", "sys_pacct",
    "sys_admin", "sys_boot", "sys_nice", "sys_resource", "sys_time", "sys_tty_config", "mknod",
    "lease", "audit_write", "audit_control", "setfcap", "mac_override", "mac_admin", "syslog",
    "wake_alarm", "block_suspend", "audit_read", "perfmon", "bpf", "checkpoint_restore",
)  # fmt: skip

# One program for any number of units beside the table: a stat for all namespace links. Of the
# environment only variables that are asked for by name leave the guest: it may hold secrets.
_READ = r"""
links=(/proc/1/ns/*) id= names= pid=0 read=' {units} '
print() {{  # print TITLE PID [FILE]
  local -a lines=()
  mapfile -t lines </proc/$2/${{3:-$1}}
  title "$1" "$2"; printf '%s\n' "${{lines[@]}}"
}}
asked() {{
  local name
  for name in "$id" $names; do [[ $read == *" $name "* ]] && return; done
  return 1
}}
emit() {{
  local -a words=(); local variable
  if [ "$pid" != 0 ] && [ -r /proc/$pid/status ] && asked; then
    links+=(/proc/$pid/ns/* /proc/$pid/exe)
    title unit "$id" "$names"
    print status $pid
    print mountinfo $pid
    print label $pid attr/current
    mapfile -d '' -t words </proc/$pid/cmdline
    print oom $pid oom_score_adj
    title command $pid; printf '%s\n' "${{words[*]}}"
    title environment $pid
    while IFS= read -r -d '' variable; do
      case $variable in {variables}) printf '%s\0' "$variable";; esac
    done </proc/$pid/environ
  fi
  id= names= pid=0
}}
for line in "${{pn_units[@]}}" ''; do
  case $line in
    Id=*) id=${{line#*=}};; Names=*) names=${{line#*=}};; MainPID=*) pid=${{line#*=}};; '') emit;;
  esac
done
print status 1
print mountinfo 1
title links
stat -c '%N' "${{links[@]}}"
true
"""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LINK = re.compile(r"'(/proc/(\d+)/(?:ns/)?(\w+))' -> '(.*)'")
_CAPABILITY_SETS = {
    "effective": "CapEff",
    "permitted": "CapPrm",
    "inheritable": "CapInh",
    "bounding": "CapBnd",
    "ambient": "CapAmb",
}
_HOME_PATHS = ("/home", "/root", "/run/user")


class SeccompMode(enum.Enum):
    """Whether system calls are filtered."""

    OFF = "off"
    STRICT = "strict"
    FILTER = "filter"
    UNKNOWN = "unknown"


class ProtectSystem(enum.Enum):
    """How much of the system is read-only for the process, in systemd's words."""

    NO = "no"
    YES = "yes"
    FULL = "full"
    STRICT = "strict"


class ProtectHome(enum.Enum):
    """What the process sees of home directories, in systemd's words."""

    NO = "no"
    READ_ONLY = "read-only"
    TMPFS = "tmpfs"
    YES = "yes"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessFacts:
    """The main process of one unit, as the kernel holds it.

    :param uids: real, effective, saved and file system user id; `gids` likewise.
    :param seccomp_filters: how many filters it has beyond those of process 1 (a container's own),
        ``None`` where the kernel does not count them (before 5.9).
    :param capabilities: set (``effective``, ``permitted``, ``bounding``, ``ambient``,
        ``inheritable``) to names.
    :param namespaces: kind (``mnt``, ``net``, ``user``, ``pid``, ``uts``, ``ipc``, ``cgroup``) to
        identity.
    :param private_namespaces: kinds in which it differs from process 1.
    :param label: of its security module (AppArmor, SELinux), ``""`` if none.
    :param mounts: as it sees them; `system_mounts` as process 1 sees them.
    :param oom_score_adj: how gladly the kernel ends it when memory runs out, -1000 (never) to 1000.
    :param environment: those variables that were asked for and are set.
    """

    unit: str
    pid: int
    executable: str
    uids: tuple[int, ...]
    gids: tuple[int, ...]
    groups: tuple[int, ...]
    no_new_privileges: bool | None
    seccomp: SeccompMode
    seccomp_filters: int | None
    capabilities: Mapping[str, frozenset[str]]
    namespaces: Mapping[str, str]
    private_namespaces: frozenset[str]
    label: str
    mounts: MountTable = field(repr=False)
    system_mounts: MountTable = field(repr=False)
    oom_score_adj: int
    command_line: str
    environment: Mapping[str, str]

    @property
    def runs_as_root(self) -> bool:
        """Whether its effective user is root of its user namespace."""
        return len(self.uids) > 1 and self.uids[1] == 0

    @property
    def protect_system(self) -> ProtectSystem:
        """What ``ProtectSystem=`` has come to."""
        if all(self.mounts.is_read_only(path) for path in ("/", "/etc", "/var", "/usr")):
            return ProtectSystem.STRICT
        if not self.mounts.is_read_only("/usr"):
            return ProtectSystem.NO
        return ProtectSystem.FULL if self.mounts.is_read_only("/etc") else ProtectSystem.YES

    @property
    def protect_home(self) -> ProtectHome:
        """What ``ProtectHome=`` has come to; the weakest of ``/home``, ``/root`` and
        ``/run/user``.
        """
        strongest = [ProtectHome.YES, ProtectHome.TMPFS, ProtectHome.READ_ONLY, ProtectHome.NO]
        found = [self._home(path) for path in _HOME_PATHS]
        return max(found, key=strongest.index)

    @property
    def private_tmp(self) -> bool:
        """Whether ``/tmp`` and ``/var/tmp`` are the unit's own."""
        return all(self._is_own(path) for path in ("/tmp", "/var/tmp"))  # noqa: S108

    @property
    def private_devices(self) -> bool:
        """Whether ``/dev`` is the unit's own, with harmless devices only."""
        return self._is_own("/dev")

    @property
    def protect_kernel_tunables(self) -> bool:
        """Whether ``/proc/sys`` is read-only, or not there at all (``ProcSubset=pid``).

        ``ProtectKernelTunables=`` covers ``/sys`` too, but systemd 257.13 leaves it writable (seen;
        252 does not), so that is a question of its own: `sys_is_read_only`.
        """
        proc = self.mounts.at("/proc")
        absent = proc is not None and "subset=pid" in proc.super_options
        return absent or self.mounts.is_read_only("/proc/sys")

    @property
    def sys_is_read_only(self) -> bool:
        """Whether nothing can be written below ``/sys`` but for mounts of their own."""
        return self.mounts.is_read_only("/sys")

    @property
    def protect_control_groups(self) -> bool:
        """Whether the control group tree is read-only."""
        return self.mounts.is_read_only("/sys/fs/cgroup")

    @property
    def protect_kernel_logs(self) -> bool:
        """Whether the kernel's log cannot be read: its device is forbidden or gone, CAP_SYSLOG
        is dropped.
        """
        hidden = self.mounts.is_inaccessible("/dev/kmsg") or self.private_devices
        return hidden and "syslog" not in self.capabilities.get("bounding", frozenset())

    @property
    def protect_kernel_modules(self) -> bool:
        """Whether modules cannot be loaded: CAP_SYS_MODULE is dropped."""
        return "sys_module" not in self.capabilities.get("bounding", frozenset())

    @property
    def hides_processes(self) -> bool:
        """Whether ``/proc`` shows only the unit's own user's processes (``ProtectProc=``)."""
        proc = self.mounts.at("/proc")
        options = proc.super_options if proc is not None else ()
        return any(
            o.startswith("hidepid=") and o not in ("hidepid=0", "hidepid=off") for o in options
        )

    def _home(self, path: str) -> ProtectHome:
        mount = self.mounts.covering(path)
        if mount is None:
            return ProtectHome.NO
        if mount.is_inaccessible:
            return ProtectHome.YES
        if mount.path == path and mount.filesystem == "tmpfs" and self._is_own(path):
            return ProtectHome.TMPFS
        return ProtectHome.READ_ONLY if mount.is_read_only else ProtectHome.NO

    def _is_own(self, path: str) -> bool:
        mount = self.mounts.covering(path)
        return mount is not None and not mount.is_same_as(self.system_mounts.covering(path))


def process_facts(
    names: Sequence[str], *, variables: Sequence[str] = (), name: str = "process-facts"
) -> Probe[Mapping[str, ProcessFacts | None]]:
    """Ask what the main processes of many units are.

    :param names: unit names; those of :func:`~pytest_nixos.observe.systemd.unit.askable_units` are asked
        for.
    :param variables: names of environment variables that are wanted too.
    :return: probe of name, with suffix, to facts; ``None`` if the unit has no main process now.
    """
    wanted = askable_units(names)
    patterns = "|".join(f"{v}=*" for v in dict.fromkeys(variables) if _NAME.fullmatch(v))
    script = _READ.format(units=" ".join(wanted), variables=patterns or "''")
    return Probe(
        name=name,
        script=script if wanted else ":",
        parse=lambda output: _parse(output, wanted),
        units=UnitQuery(names=tuple(wanted), properties=("MainPID",)) if wanted else None,
    )


def capability_names(mask: str) -> frozenset[str]:
    """Return the names of a hexadecimal capability mask; numbers for those that have no name yet.

    :raises ValueError: if it is no hexadecimal number.
    """
    bits = int(mask, 16)
    names = dict(enumerate(CAPABILITIES))
    return frozenset(names.get(i, str(i)) for i in range(bits.bit_length()) if bits >> i & 1)


def _parse(output: ProbeOutput, wanted: Sequence[str]) -> Mapping[str, ProcessFacts | None]:
    sections = output.sections
    links = _links(sections.get("links", ()))
    system = parse_mountinfo(sections.get("mountinfo 1", ()))
    facts: dict[str, ProcessFacts | None] = dict.fromkeys(wanted)
    unit_names: list[str] = []
    for title in sections:
        kind, _, rest = title.partition(" ")
        if kind == "unit":
            unit_names = rest.split()
        elif kind == "status" and rest != "1" and whole(rest) is not None:
            for unit in set(unit_names) & set(wanted):
                facts[unit] = _facts(unit, rest, sections, links, system)
    return facts


def _facts(
    unit: str,
    pid: str,
    sections: Mapping[str, Sequence[str]],
    links: Mapping[str, Mapping[str, str]],
    system: MountTable,
) -> ProcessFacts:
    status, system_status = _status(sections, pid), _status(sections, "1")
    mine, first = dict(links.get(pid, {})), links.get("1", {})
    executable = mine.pop("exe", "")
    return ProcessFacts(
        unit=unit,
        pid=int(pid),
        executable=executable,
        uids=_numbers(status.get("Uid", "")),
        gids=_numbers(status.get("Gid", "")),
        groups=_numbers(status.get("Groups", "")),
        no_new_privileges={"0": False, "1": True}.get(status.get("NoNewPrivs", "")),
        seccomp={"0": SeccompMode.OFF, "1": SeccompMode.STRICT, "2": SeccompMode.FILTER}.get(
            status.get("Seccomp", ""), SeccompMode.UNKNOWN
        ),
        seccomp_filters=_added_filters(status, system_status),
        capabilities={name: _mask(status.get(key, "")) for name, key in _CAPABILITY_SETS.items()},
        namespaces=mine,
        private_namespaces=frozenset(
            kind for kind, identity in mine.items() if kind in first and first[kind] != identity
        ),
        label="".join(sections.get(f"label {pid}", ())).strip().rstrip("\0"),
        mounts=parse_mountinfo(sections.get(f"mountinfo {pid}", ())),
        system_mounts=system,
        oom_score_adj=_signed("".join(sections.get(f"oom {pid}", ()))),
        command_line="\n".join(sections.get(f"command {pid}", ())).strip(),
        environment=_environment("\n".join(sections.get(f"environment {pid}", ()))),
    )


def _environment(text: str) -> Mapping[str, str]:
    assignments = (record.partition("=") for record in text.split("\0"))
    return {key: value for key, sign, value in assignments if sign}


def _signed(text: str) -> int:
    return int(text) if re.fullmatch(r"-?[0-9]{1,9}", text) else 0


def _status(sections: Mapping[str, Sequence[str]], pid: str) -> Mapping[str, str]:
    pairs = (line.partition(":") for line in sections.get(f"status {pid}", ()))
    return {key: value.strip() for key, _, value in pairs}


def _added_filters(status: Mapping[str, str], system_status: Mapping[str, str]) -> int | None:
    mine, first = (s.get("Seccomp_filters", "") for s in (status, system_status))
    ours, theirs = whole(mine), whole(first)
    return None if ours is None or theirs is None else ours - theirs


def _links(lines: Sequence[str]) -> Mapping[str, Mapping[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for line in lines:
        match = _LINK.match(line)
        if match and not match[3].endswith("_for_children"):
            found.setdefault(match[2], {})[match[3]] = match[4]
    return found


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(number for word in text.split() if (number := whole(word)) is not None)


def _mask(text: str) -> frozenset[str]:
    try:
        return capability_names(text)
    except ValueError:
        return frozenset()
