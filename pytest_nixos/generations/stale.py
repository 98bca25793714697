"""Services that still run what an earlier generation gave them, found after a switch.

A switch restarts what it sees changed: unit files (nixos/modules/system/activation,
switch-to-configuration). It does not see a file in /etc that a service reads at its start (nixpkgs
54475, 169887), and it leaves alone what says ``restartIfChanged = false``. So a service that has
run since before the switch is held against what it was started from: its unit, the files in /etc
that its unit and its scripts name, the store paths that its process maps, and the environment that
a fresh boot of the same system gives it.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Self

from pytest_nixos.generations.admission import run_guest
from pytest_nixos.machine.base import Machine
from pytest_nixos.nix.config.unit import parse_unit_file
from pytest_nixos.observe.systemd.unit import parse_show

__all__ = [
    "LEFT_BY_DESIGN",
    "VOLATILE",
    "RunningService",
    "changed_etc",
    "files_named",
    "look_at_services",
    "other_variables",
    "really_changed",
    "stale_services",
]

_SHOW = (
    "systemctl show --no-pager --property=Id,SubState,MainPID,InvocationID,StateChangeTimestampMonotonic,"
    "FragmentPath,DropInPaths '*.service'"
)
# A line a service: base64 of its name, unit text, names of files in /etc, store paths of its
# process, environment.
_LOOK = r"""
while IFS=$'\t' read -r name pid files; do
  text=$(cat -- $files 2>/dev/null)
  scripts=$(sed -n 's/^Exec[A-Za-z]*=//p' <<<"$text" | grep -oE '/nix/store/[^[:space:]"]+' | sort -u)
  named=$({
    printf '%s\n' "$text"
    for script in $scripts; do
      [ -f "$script" ] && [ "$(head -c 2 "$script" | tr -d '\0')" = '#!' ] && head -c 65536 "$script"
    done
  } | grep -aoE '/etc/[A-Za-z0-9._/@+:-]*[A-Za-z0-9]' | sort -u)
  paths=$({ readlink "/proc/$pid/exe"; cat "/proc/$pid/maps"; } 2>/dev/null \
    | grep -oE '/nix/store/[0-9a-z]{32}-[A-Za-z0-9+._?=-]+' | sort -u)
  for field in "$name" "$text" "$named" "$paths"; do printf %s "$field" | base64 -w0; printf '\t'; done
  base64 -w0 "/proc/$pid/environ" 2>/dev/null
  echo
done
"""
_ETC = r"cd %s/etc/ && find . -mindepth 1 ! -type d -printf '%%P\0%%l\0'"
_COMPARE = r"""
while read -r path; do
  if [ -d "$1$path" ] && [ -d "$2$path" ]; then diff -rq "$1$path" "$2$path"; else cmp -s "$1$path" "$2$path"; fi >/dev/null 2>&1 \
    || printf '%s\n' "$path"
done
"""
#: systemd sets these at each start, whatever the unit says (systemd.exec(5)).
VOLATILE = frozenset(
    (
        "INVOCATION_ID",
        "JOURNAL_STREAM",
        "LISTEN_FDS",
        "LISTEN_FDNAMES",
        "LISTEN_PID",
        "MAINPID",
        "MEMORY_PRESSURE_WATCH",
        "MEMORY_PRESSURE_WRITE",
        "NOTIFY_SOCKET",
        "SYSTEMD_EXEC_PID",
        "WATCHDOG_PID",
    )
)
# What programs read whenever they need it, or what is no configuration of a service.
_READ_ANEW = (
    "/etc/fstab",
    "/etc/group",
    "/etc/host.conf",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/localtime",
    "/etc/machine-id",
    "/etc/nsswitch.conf",
    "/etc/os-release",
    "/etc/passwd",
    "/etc/profile",
    "/etc/resolv.conf",
    "/etc/set-environment",
    "/etc/shadow",
    "/etc/ssl",
    "/etc/static",
    "/etc/systemd",
    "/etc/zoneinfo",
)
#: NixOS leaves these to the next boot by design: to restart them would end sessions (their own
# restartIfChanged = false).
LEFT_BY_DESIGN = (
    "autovt@",
    "console-getty",
    "container-getty@",
    "dbus",
    "display-manager",
    "getty@",
    "pytest-nixos-channel",
    "serial-getty@",
    "systemd-journald",
    "systemd-logind",
    "systemd-udevd",
    "user@",
    "user-runtime-dir@",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningService:
    """A service with a main process, at one moment.

    :param invocation: id of its start.
    :param changed_us: when its state last changed; later with the same start after a reload.
    :param unit: its unit file and drop-ins.
    :param etc: names in /etc that the unit and its scripts hold.
    :param store_paths: what its main process is made of.
    :param environment: of its main process.
    """

    name: str
    invocation: str
    changed_us: int
    unit: str
    etc: frozenset[str]
    store_paths: frozenset[str]
    environment: Mapping[str, str]

    @classmethod
    def parse(cls, shown: Mapping[str, str], fields: list[str]) -> Self:
        """Read one service from what systemd shows and what the guest's line holds."""
        _, unit, etc, paths, environ = (_decoded(field) for field in fields)
        changed = shown.get("StateChangeTimestampMonotonic", "")
        pairs = (entry.partition("=") for entry in environ.split("\0") if entry)
        return cls(
            name=shown["Id"],
            invocation=shown.get("InvocationID", ""),
            changed_us=int(changed) if changed.isdecimal() else 0,
            unit=unit,
            etc=frozenset(etc.split()),
            store_paths=frozenset(paths.split()),
            environment={key: value for key, _, value in pairs},
        )

    @property
    def settings(self) -> Mapping[str, tuple[str, ...]]:
        """The unit's section ``[Service]``; what else a unit says does not change a process."""
        return parse_unit_file(self.unit).get("Service", {})

    @property
    def left_by_design(self) -> bool:
        """Whether NixOS never restarts it in a switch."""
        return self.name.startswith(LEFT_BY_DESIGN)


def look_at_services(machine: Machine) -> dict[str, RunningService]:
    """Return the services that have a main process, by name."""
    shown = {
        block["Id"]: block
        for block in parse_show(run_guest(machine, _SHOW).stdout_text)
        if block.get("SubState") == "running" and block.get("MainPID", "0") != "0"
    }
    lines = "".join(
        f"{name}\t{block['MainPID']}\t{block.get('FragmentPath', '')} {block.get('DropInPaths', '')}\n"
        for name, block in shown.items()
    )
    answer = run_guest(machine, _LOOK, stdin=lines.encode()).stdout_text
    found = {}
    for line in answer.splitlines():
        fields = line.split("\t")
        name = _decoded(fields[0])
        if len(fields) == 5 and name in shown:
            found[name] = RunningService.parse(shown[name], fields)
    return found


def changed_etc(machine: Machine, old: str, new: str) -> frozenset[str]:
    """Name what two toplevels have differently below /etc, by the links that make it up."""
    trees = [_etc(machine, toplevel) for toplevel in (old, new)]
    names = trees[0].keys() | trees[1].keys()
    return frozenset(f"/etc/{name}" for name in names if trees[0].get(name) != trees[1].get(name))


def really_changed(machine: Machine, old: str, new: str, names: Iterable[str]) -> frozenset[str]:
    """Return those of `names` whose content differs: a new store path may hold the same text."""
    listed = "".join(f"{name}\n" for name in sorted(names)).encode()
    answer = run_guest(machine, f"set -- {old} {new}\n{_COMPARE}", stdin=listed)
    return frozenset(answer.stdout_text.splitlines())


def stale_services(
    *,
    before: Mapping[str, RunningService],
    after: Mapping[str, RunningService],
    changed: Collection[str],
    closure: Collection[str],
) -> dict[str, tuple[str, ...]]:
    """Return the services that still run what the generation before the switch gave them, each
    with the reasons.

    :param before: services before the switch.
    :param after: services after it.
    :param changed: paths in /etc that the switch changed.
    :param closure: store paths of the new system.
    """
    found = {}
    for name, service in after.items():
        earlier = before.get(name)
        if earlier is None or earlier.invocation != service.invocation or service.left_by_design:
            continue
        reasons = (
            *_of_unit(earlier, service),
            *_of_files(earlier, service, changed),
            *_of_store(service, closure),
        )
        if reasons:
            found[name] = reasons
    return found


def other_variables(
    upgraded: Mapping[str, RunningService], fresh: Mapping[str, RunningService]
) -> dict[str, str]:
    """Name the services to which a fresh boot of the same system gives another environment, with
    the reason.

    Only a file can change the environment of a unit that is the same in both.
    """
    found = {}
    for name, service in upgraded.items():
        other = fresh.get(name)
        if other is None or "EnvironmentFile" not in other.settings:
            continue
        names = (service.environment.keys() | other.environment.keys()) - VOLATILE
        differ = sorted(n for n in names if service.environment.get(n) != other.environment.get(n))
        if differ:
            found[name] = f"a fresh boot gives it other variables: {', '.join(differ)}"
    return found


def files_named(service: RunningService, changed: Collection[str]) -> tuple[str, ...]:
    """Return what a service names of `changed`: the file itself, or a directory above it."""
    named = [name.rstrip("/") for name in service.etc if not name.startswith(_READ_ANEW)]
    hits = {
        path for path in changed for name in named if path == name or path.startswith(f"{name}/")
    }
    return tuple(sorted(hits))


def _of_unit(earlier: RunningService, now: RunningService) -> tuple[str, ...]:
    if earlier.settings == now.settings or now.changed_us != earlier.changed_us:
        return ()
    keys = sorted(
        key
        for key in earlier.settings.keys() | now.settings.keys()
        if earlier.settings.get(key) != now.settings.get(key)
    )
    said = " (it says restartIfChanged = false)" if "X-RestartIfChanged=false" in now.unit else ""
    return (f"its unit changed ({', '.join(keys)}), and it was not restarted{said}",)


def _of_files(
    earlier: RunningService, now: RunningService, changed: Collection[str]
) -> tuple[str, ...]:
    # A reload reads them again.
    if now.changed_us != earlier.changed_us:
        return ()
    return tuple(
        f"it names {path}, which changed, and was neither restarted nor reloaded"
        for path in files_named(now, changed)
    )


def _of_store(now: RunningService, closure: Collection[str]) -> tuple[str, ...]:
    left = sorted(path for path in now.store_paths if path not in closure)
    if not left:
        return ()
    more = f" and {len(left) - 3} more" if len(left) > 3 else ""
    return (f"its process is made of {', '.join(left[:3])}{more}, which the new system lacks",)


def _etc(machine: Machine, toplevel: str) -> dict[str, str]:
    fields = run_guest(machine, _ETC % toplevel).stdout_text.split("\0")
    return dict(zip(fields[::2], fields[1::2], strict=False))


def _decoded(field: str) -> str:
    try:
        return base64.b64decode(field, validate=True).decode(errors="replace")
    except (binascii.Error, ValueError):
        return ""
