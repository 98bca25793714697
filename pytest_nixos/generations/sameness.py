"""Whether a system that was switched to is what the same generation is after a boot: its units and
their environment, /etc, accounts, sysctls, packet filter, mounts and listening sockets.

A switch changes what it knows to be changed; what it leaves (a sysctl that nobody sets any more, a
service that is not restarted) shows only after the next boot, when nobody expects it.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_nixos.errors import GenerationError
from pytest_nixos.generations.stale import LEFT_BY_DESIGN, VOLATILE
from pytest_nixos.machine.base import Machine
from pytest_nixos.observe.base import Probe, ProbeOutput, observe

if TYPE_CHECKING:
    from pytest_nixos.generations.generations import Generations

__all__ = [
    "Difference",
    "SystemState",
    "against_fresh_boot",
    "differences",
    "system_state",
]

# Each line is an item and its value, parted by a tab.
_READ = r"""
title units
systemctl list-units --all --plain --no-legend --no-pager --type=service,socket,timer,path,mount,swap,target,automount \
  | while read -r unit load active sub _; do printf '%s\t%s (%s)\n' "$unit" "$active" "$sub"; done
title starts
systemctl show --no-pager --property=Id,MainPID,ActiveEnterTimestampMonotonic '*.service' \
  | while IFS='=' read -r key value; do
      case $key in Id) unit=$value ;; MainPID) pid=$value ;; ActiveEnterTimestampMonotonic) at=$value ;; esac
      [[ -n $key ]] || { [[ $pid == 0 ]] || printf '%s\t%s %s\n' "$unit" "$pid" "$at"; }
    done; [[ ${pid:-0} == 0 ]] || printf '%s\t%s %s\n' "$unit" "$pid" "$at"
title environment
for unit in $(systemctl list-units --state=running --plain --no-legend --no-pager --type=service | cut -d' ' -f1); do
  pid=$(systemctl show --property=MainPID --value "$unit")
  [[ $pid == 0 ]] || tr '\0' '\n' <"/proc/$pid/environ" | while IFS='=' read -r name value; do printf '%s %s\t%s\n' "$unit" "$name" "$value"; done
done
title programs
for unit in $(systemctl list-units --state=running --plain --no-legend --no-pager --type=service | cut -d' ' -f1); do
  pid=$(systemctl show --property=MainPID --value "$unit")
  [[ $pid == 0 ]] || printf '%s\t%s\n' "$unit" "$(readlink "/proc/$pid/exe")"
done
title files
cd /etc && find . -xdev \( -type l -printf '%P\t' -exec readlink -f {} \; \) -o \( -type f -printf '%P\t%m %u:%g ' -exec sha256sum {} \; \) | sed 's/  \..*$//'
title users
getent passwd | sed 's/:/\t/'
title groups
getent group | sed 's/:/\t/'
title sysctls
find /proc/sys -xdev -type f -perm -u+r ! -path '*/neigh/*' 2>/dev/null | while read -r file; do
  read -r value <"$file" && printf '%s\t%s\n' "${file#/proc/sys/}" "$value"
done
title filter
nft --stateless list ruleset 2>/dev/null | sed -E 's/^[ \t]*//; s/ # handle [0-9]+//; /^(#|$)/d' | awk '/^table/{table=$2" "$3} /^(chain|set|map)/{chain=$2} {n[table,chain]++; printf "%s %s %d\t%s\n", table, chain, n[table,chain], $0}'
title mounts
while read -r _ _ _ _ target options _ rest; do rest=${rest#*- }; printf '%s\t%s %s\n' "$target" "${rest%% *}" "$options"; done </proc/self/mountinfo
title sockets
ss -Hlntu 2>/dev/null | while read -r kind state _ _ local _; do printf '%s %s\t%s\n' "$kind" "$local" "$state"; done
title ports
cat /proc/sys/net/ipv4/ip_local_port_range
title complete
true
"""
# What differs from one boot to the next whatever the generation says.
_CHANCE = {
    "units": re.compile(
        r"^(run-|user@|user-runtime-dir@|session-|systemd-(tmpfiles-clean|update-done|random-seed|"
        r"journal-flush|machine-id-commit|networkd-wait-online|boot-random-seed|binfmt|hibernate)|"
        r"getty|serial-getty|container-getty|modprobe@|dev-|sys-|proc-sys|shutdown|umount|final|reboot|"
        r"nixos-rebuild|switch-to-configuration|pytest-nixos)|\.mount$|logrotate|nix-gc|fstrim"
    ),
    "environment": re.compile(
        rf" ({'|'.join(sorted(VOLATILE))}|TERM|CREDENTIALS_DIRECTORY|CACHE_DIRECTORY)$"
    ),
    "files": re.compile(
        r"^(\.updated|\.pwd\.lock|adjtime|machine-id|mtab|resolv\.conf|ld\.so\.cache|.*-$|ssh/ssh_host_|shadow$)"
    ),
    "sysctls": re.compile(
        r"^(kernel/(random/|ns_last_pid|pty/nr|spl|hung_task_detect_count|sched_domain)|fs/(.*-nr|.*-state|"
        r"aio-nr|quota/|binfmt_misc/|xfs/)|net/netfilter/nf_conntrack_(count|buckets|max)|"
        r"net/ipv4/(tcp_fastopen_key|route/)|dev/|vm/stat|sunrpc/)|flush$|stable_secret$"
    ),
    "mounts": re.compile(r"^/(proc|sys|dev|run/(user|credentials|systemd|host|pytest))"),
}
# Set at each boot from the memory that is free then (kernel/fork.c, mm/util.c, mm/page_alloc.c, fs/file_table.c,
# fs/eventpoll.c, fs/notify, net/ipv4/tcp.c), which no two boots have alike.
_FROM_MEMORY = re.compile(
    r"^(kernel/threads-max|user/max_\w+|vm/\w+_(reserve|free)_kbytes|fs/(file-max|epoll/max_user_watches|"
    r"inotify/max_user_watches|fanotify/max_user_marks)|net/.*(_[rw]?mem|tcp_max_\w+))$"
)
_NEAR = 0.05
# systemctl's states of what runs now and then.
_COMES_AND_GOES = re.compile(r"^(inactive|activating|deactivating)")
_STATIC_PORTS = 32768

_BY_DESIGN = "NixOS leaves it to the next boot by design"
_REASONS: Mapping[str, tuple[str, str, str]] = {
    # only after the switch, only after the boot, both and different
    "units": (
        "the boot does not start it: nothing wants it in this generation",
        "the switch did not start it, though this generation wants it",
        "it is in another state",
    ),
    "environment": ("", "", "its process was started with what an earlier generation gave it"),
    "programs": ("", "", "its process runs the program of an earlier generation"),
    "files": (
        "no generation holds it: something else left it",
        "something makes it at the boot alone",
        "it is not what this generation makes of it at the boot",
    ),
    "users": (
        "the boot does not make it: the account is kept by what the activation remembers",
        "the activation at the boot makes it, and that of the switch did not",
        "the account has other fields",
    ),
    "sysctls": (
        "it belongs to a module or interface that the boot does not bring",
        "it belongs to a module or interface that the switch did not bring",
        "a switch sets what is declared and takes nothing back: the value is what an earlier generation or the running system set",
    ),
    "filter": (
        "a rule that this generation does not load at the boot",
        "a rule that the switch did not load",
        "the rules have another order or content",
    ),
    "mounts": (
        "this generation does not mount it at the boot",
        "the switch did not mount it",
        "it is mounted otherwise: a switch remounts where it can",
    ),
    "sockets": (
        "somebody still listens that this generation does not start",
        "nobody listens until the next boot",
        "",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemState:
    """What a running system is, by aspect: items and their values.

    :param is_whole: whether all of it was read.
    :param starts: process and time of start (microseconds of the boot) of services.
    """

    is_whole: bool
    aspects: Mapping[str, Mapping[str, str]]
    starts: Mapping[str, str]

    @classmethod
    def parse(cls, output: ProbeOutput) -> SystemState:
        """Read what :func:`system_state` printed."""
        sections = output.sections
        aspects = {name: _items(name, sections.get(name, ())) for name in (*_REASONS, "groups")}
        aspects["users"] = {**aspects["users"], **_prefixed("group ", aspects.pop("groups"))}
        aspects["sockets"] = _lasting(aspects["sockets"], sections.get("ports", ()))
        return cls(
            is_whole="complete" in sections,
            aspects=aspects,
            starts=_items("", sections.get("starts", ())),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Something that is otherwise after the switch than after a boot.

    :param aspect: ``units``, ``environment``, ``programs``, ``files``, ``users``, ``sysctls``,
        ``filter``, ``mounts`` or ``sockets``.
    :param switched: its value after the switch, ``None`` where it is not there.
    :param booted: its value after the boot.
    :param by_design: whether NixOS leaves it to the next boot on purpose.
    """

    aspect: str
    item: str
    switched: str | None
    booted: str | None
    reason: str
    by_design: bool = False

    def __str__(self) -> str:
        values = f"{_shown(self.switched)} after the switch, {_shown(self.booted)} after a boot"
        return f"{self.aspect}: {self.item}: {values}: {self.reason}"


def system_state() -> Probe[SystemState]:
    """Return the probe for what a running system is."""
    return Probe(name="system state", script=_READ, parse=SystemState.parse)


def differences(switched: SystemState, booted: SystemState) -> tuple[Difference, ...]:
    """Compare a system after a switch with the same generation after a boot."""
    return tuple(
        _difference(aspect, item, before.get(item), after.get(item))
        for aspect in _REASONS
        for before, after in [(switched.aspects[aspect], booted.aspects[aspect])]
        for item in sorted({*before, *after})
        if before.get(item) != after.get(item) and _is_meant(aspect, item, before, after)
    )


def _difference(aspect: str, item: str, switched: str | None, booted: str | None) -> Difference:
    only_switched, only_booted, both = _REASONS[aspect]
    before, after = _presence(switched), _presence(booted)
    reason = both if before and after else only_switched if before else only_booted
    by_design = aspect in ("units", "environment", "programs") and item.startswith(LEFT_BY_DESIGN)
    return Difference(
        aspect=aspect,
        item=item,
        switched=switched,
        booted=booted,
        reason=_BY_DESIGN if by_design else reason,
        by_design=by_design,
    )


def _presence(value: str | None) -> bool:
    """Whether something is there; a unit that does not run is not."""
    return value is not None and not _COMES_AND_GOES.match(value)


def _is_meant(
    aspect: str, item: str, switched: Mapping[str, str], booted: Mapping[str, str]
) -> bool:
    """Whether a difference says something: a service that runs in one of both alone is told as a
    unit, and one that comes and goes may be anywhere.
    """
    if aspect in ("environment", "programs"):
        unit = item.partition(" ")[0]
        return all(any(i.partition(" ")[0] == unit for i in items) for items in (switched, booted))
    if aspect == "units":
        states = (switched.get(item, "inactive"), booted.get(item, "inactive"))
        return not all(_COMES_AND_GOES.match(state) for state in states)
    if aspect == "sysctls" and _FROM_MEMORY.match(item):
        return not _is_near(switched.get(item, ""), booted.get(item, ""))
    return True


def _is_near(one: str, other: str) -> bool:
    """Whether two values are the same numbers, but for what one boot has more memory free than
    another.
    """
    pairs = list(itertools.zip_longest(one.split(), other.split(), fillvalue=""))
    return bool(pairs) and all(
        a == b
        or (a.isdecimal() and b.isdecimal() and abs(int(a) - int(b)) <= _NEAR * max(int(a), int(b)))
        for a, b in pairs
    )


def _items(aspect: str, lines: Iterable[str]) -> dict[str, str]:
    chance = _CHANCE.get(aspect)
    pairs = (line.partition("\t") for line in lines if "\t" in line)
    return {item: value for item, _, value in pairs if chance is None or not chance.search(item)}


def _prefixed(prefix: str, items: Mapping[str, str]) -> dict[str, str]:
    return {f"{prefix}{item}": value for item, value in items.items()}


def _lasting(sockets: Mapping[str, str], ports: Iterable[str]) -> dict[str, str]:
    """Leave out ports that the kernel chose: they are others after each start."""
    words = " ".join(ports).split()
    least = int(words[0]) if words and words[0].isdecimal() else _STATIC_PORTS
    numbers = {item: item.rpartition(":")[2] for item in sockets}
    return {i: v for i, v in sockets.items() if numbers[i].isdecimal() and int(numbers[i]) < least}


def _shown(value: str | None) -> str:
    return "absent" if value is None else repr(value[:120])


def against_fresh_boot(machine: Machine, generations: Generations) -> tuple[Difference, ...]:
    """Look at a running system, boot the same generation afresh, and compare.

    :raises GenerationError: if the machine does not come up in the generation that it runs, or
        does not tell what it is.
    """
    running = generations.current
    switched = _looked(machine)
    outcome = generations.reboot()
    if outcome.after.current != running:
        raise GenerationError(
            f"{machine.name}: came up in {outcome.after.current}, not in {running} that was switched to",
            remedy="compare on a machine whose boot default is what it runs: a container, or a VM with a boot loader",
        )
    return differences(switched, _looked(machine))


def _looked(machine: Machine) -> SystemState:
    seen = observe(machine.run, system_state())
    if not seen.is_whole:
        raise GenerationError(
            f"{machine.name}: does not tell what it is",
            remedy="look whether the guest still has its programs: systemctl, find, sha256sum, ss",
        )
    return seen
