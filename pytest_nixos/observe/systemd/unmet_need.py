"""What a unit needs of the machine before its program starts, and what of that is not there: why one
failed, and why one that has not run yet could not start.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence

from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.nix.config.unit import Unit
from pytest_nixos.observe.base import Probe, ProbeOutput
from pytest_nixos.observe.systemd.failed_unit import PLAIN, FailedUnit, UnitFailure, having_made

__all__ = [
    "lacks_account",
    "lacks_directory",
    "lacks_group",
    "lacks_path",
    "unmet_needs",
]

# What has to be there for the service's view of the file system, systemd.exec(5).
_NAMED_PATHS = (
    *("ReadWritePaths", "ReadOnlyPaths", "InaccessiblePaths", "ExecPaths", "NoExecPaths"),
    *("BindPaths", "BindReadOnlyPaths"),
)
# Directories that systemd makes for a service, systemd.exec(5).
_MADE = {
    "StateDirectory": "/var/lib",
    "CacheDirectory": "/var/cache",
    "LogsDirectory": "/var/log",
    "ConfigurationDirectory": "/etc",
}
# Filled while the host runs, or no files of the host's own.
_OF_THE_MOMENT = ("/run/", "/tmp/", "/var/tmp/", "/dev/", "/proc/", "/sys/", "/nix/")  # noqa: S108 - compared
_PULLED_IN = ("Requires", "Requisite", "BindsTo", "Wants")
_MAKES_SOMETHING = (".service", ".mount", ".automount")
_ALWAYS_THERE = frozenset({"root", "nobody"})
_NUMBER = re.compile(r"\d+")
_READ = r"""
for path in {paths}; do [[ -e $path ]] || printf 'path %s\n' "$path"; done
for name in {users}; do getent passwd -- "$name" >/dev/null; (( $? == 2 )) && printf 'user %s\n' "$name"; done
for name in {groups}; do getent group -- "$name" >/dev/null; (( $? == 2 )) && printf 'group %s\n' "$name"; done
printf 'done\n'
"""


def unmet_needs(host: HostConfig, names: Sequence[str]) -> Probe[Mapping[str, UnitFailure]]:
    """Ask which services lack an account, a group or a directory without which systemd does not
    start them.

    What something else may bring until the service is started is left out: files below ``/run``, on a
    file system of its own, or that a service makes which is started with it.

    :param names: services, with suffix.
    :return: probe of name to why it could not start; those that lack nothing are left out.
    """
    services = [FailedUnit.of(name, host, (), {}) for name in names]
    known = [service for service in services if service.unit is not None]
    paths = {path for service in known for path in _paths(service)}
    users = {user for service in known if (user := _user(service))}
    groups = {group for service in known for group in _groups(service)}
    script = _READ.format(
        paths=shlex.join(sorted(paths)),
        users=shlex.join(sorted(users)),
        groups=shlex.join(sorted(groups)),
    )

    def parse(output: ProbeOutput) -> Mapping[str, UnitFailure]:
        lines = output.text.splitlines()
        if lines[-1:] != ["done"]:
            return {}
        missing = frozenset(lines)
        told = ((service.name, _lack(service, missing)) for service in known)
        return {name: lack for name, lack in told if lack is not None}

    wanted = paths or users or groups
    return Probe(name="unmet-needs", script=script if wanted else ":", parse=parse)


def _lack(service: FailedUnit, missing: frozenset[str]) -> UnitFailure | None:
    if f"user {_user(service)}" in missing:
        return lacks_account(service)
    if any(f"group {group}" in missing for group in _groups(service)):
        return lacks_group(service)
    for path in _paths(service):
        if f"path {path}" in missing:
            if path == service.last("WorkingDirectory"):
                return lacks_directory(service)
            return lacks_path(service, path)
    return None


def _user(service: FailedUnit) -> str:
    user = service.last("User")
    there = user in service.host.users and service.host.users[user].enabled
    if service.is_on("DynamicUser") or there or user in _ALWAYS_THERE or _NUMBER.fullmatch(user):
        return ""
    return user if PLAIN.fullmatch(user) else ""


def _groups(service: FailedUnit) -> Iterator[str]:
    own = "" if service.is_on("DynamicUser") else service.last("Group")
    for group in (own, *service.words("SupplementaryGroups").split()):
        if PLAIN.fullmatch(group) and not _NUMBER.fullmatch(group) and group not in _ALWAYS_THERE:
            yield group


def _paths(service: FailedUnit) -> Iterator[str]:
    unit = service.unit
    if unit is None or _is_made_first(unit) or service.words("RootDirectory", "RootImage"):
        return
    brought = [
        *(fs.mount_point for fs in service.host.file_systems.values() if fs.mount_point != "/"),
        *(path for other in service.host.units.values() for path in _made(other)),
    ]
    for path in (service.last("WorkingDirectory"), *_named(service)):
        if not path.startswith("/") or path == "/" or not PLAIN.fullmatch(path):
            continue
        inside = any(f"{path}/".startswith(f"{above.rstrip('/')}/") for above in brought)
        if not inside and not f"{path}/".startswith(_OF_THE_MOMENT):
            yield path


def _named(service: FailedUnit) -> Iterator[str]:
    for key in _NAMED_PATHS:
        for word in service.words(key).split():
            path = word.partition(":")[0] if key.startswith("Bind") else word
            yield path.lstrip("+")  # one with "-" is done without


def _made(unit: Unit) -> Iterator[str]:
    for key, above in _MADE.items():
        yield from (f"{above}/{name.partition(':')[0]}" for name in unit.words("Service", key))


def _is_made_first(unit: Unit) -> bool:
    """Whether something of it, or beside it, may make its directories before it needs them."""
    by_root = any(
        text.lstrip("-:@|!").startswith("+") for text in unit.setting("Service", "ExecStartPre")
    )
    beside = (word for key in _PULLED_IN for word in unit.words("Unit", key))
    return by_root or any(word.endswith(_MAKES_SOMETHING) for word in beside)


def lacks_account(failed: FailedUnit) -> UnitFailure:
    """Tell of a service whose account does not exist."""
    user = failed.last("User")
    if not user:
        return UnitFailure(why="its account is not there")
    if user in failed.host.users or not PLAIN.fullmatch(user):
        return UnitFailure(why=f"its account {user} is not there, though the host declares it")
    return UnitFailure(
        why=f"its account {user} is not there, and the host declares none",
        remedy=f'users.users."{user}" = {{ isSystemUser = true; group = "{user}"; }};\n'
        f'users.groups."{user}" = {{ }};',
    )


def lacks_group(failed: FailedUnit) -> UnitFailure:
    """Tell of a service one of whose groups does not exist."""
    groups = [failed.last("Group"), *failed.last("SupplementaryGroups").split()]
    named = [group for group in groups if group and PLAIN.fullmatch(group)]
    if len(named) != 1:
        return UnitFailure(why=f"one of its groups is not there: {', '.join(named) or 'no name'}")
    return UnitFailure(
        why=f"its group {named[0]} is not there", remedy=f'users.groups."{named[0]}" = {{ }};'
    )


def lacks_directory(failed: FailedUnit) -> UnitFailure:
    """Tell of a service that cannot enter its working directory."""
    path = failed.last("WorkingDirectory").removeprefix("-")
    if not path.startswith("/"):
        return UnitFailure(why="it cannot enter its working directory")
    return UnitFailure(
        why=f"it cannot enter its working directory {path}", remedy=having_made(failed, path)
    )


def lacks_path(failed: FailedUnit, path: str) -> UnitFailure:
    """Tell of a service whose unit names a path that is not there."""
    return UnitFailure(
        why=f"{path}, which its unit names, is not there", remedy=having_made(failed, path)
    )
