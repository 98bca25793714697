"""Why services failed, and what mends them, where systemd itself tells."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence

import msgspec

from pytest_nixos.nix.declared import Unit
from pytest_nixos.nix.host_facts import HostConfig

__all__ = ["UnitFailure", "UnitFailures", "why_failed"]

# What systemd's child says when it cannot become the program (src/core/exec-invoke.c), and what it
# has said of that before.
_STEP = re.compile(r"Failed at step (?P<step>[A-Z_]+) spawning (?P<program>\S+): (?P<error>[^:]+)$")
_NAMESPACE = re.compile(
    r"Failed to set up mount namespacing: (?:/run/systemd/unit-root)?(?P<path>/\S+): No such file"
)
_NO_ENVIRONMENT = "Failed to load environment files: "
_EXITED = re.compile(r"process exited, code=exited, status=(?P<status>\d+)(?:/(?P<step>[A-Z_]+))?")
_RESULT = re.compile(r"Failed with result '(?P<result>[a-z-]+)'")
# systemd.exec(5), "Process exit codes": those of systemd itself.
_OF_SYSTEMD = range(200, 260)
# systemd.service(5), Result=.
_RESULTS = {
    "core-dump": "it crashed and dumped core",
    "oom-kill": "it was killed for want of memory",
    "protocol": "it ended before it said that it is ready, as its Type= demands",
    "signal": "a signal ended it",
    "start-limit-hit": "it was started too often in a short time",
    "timeout": "it did not start or stop in the time that it has",
    "watchdog": "it did not answer systemd's watchdog",
}
# systemd.service(5), Type=: what the service itself has to do before it counts as started.
_SAYS_READY = {
    "notify": "calls sd_notify(3)",
    "notify-reload": "calls sd_notify(3)",
    "dbus": "takes its BusName=",
    "forking": "forks, and writes its PIDFile= if it has one",
}
_READ_ONLY = re.compile(r"(?P<path>/[\w@./+-]*\w)['\"]?: Read-only file system")
# Nothing of a service is written there.
_NEVER_WRITTEN = ("/etc", "/nix", "/usr", "/boot", "/proc", "/sys", "/dev")
# What many services have their own directories in.
_SHARED = frozenset({"/var/lib", "/var/log", "/var/cache", "/var/tmp"})  # noqa: S108 - compared
# Directories that systemd makes, for the service's account, before it looks at anything else;
# systemd.exec(5), RuntimeDirectory=.
_MADE_BELOW = {
    "/var/lib/": "StateDirectory",
    "/var/cache/": "CacheDirectory",
    "/var/log/": "LogsDirectory",
    "/run/": "RuntimeDirectory",
}
#: What a guest says is untrusted: a name or path from its journal is put into Nix text only so.
_PLAIN = re.compile(r"[\w@./:+-]+")


class UnitFailure(msgspec.Struct, frozen=True, kw_only=True):
    """Why a service's last run failed.

    :param why: a clause about it, ``""`` where only its own words may tell.
    :param remedy: module text that mends it, ``""`` where nobody knows one.
    """

    why: str = ""
    remedy: str = ""


class UnitFailures(msgspec.Struct, frozen=True):
    """Why each of some units failed.

    :param by_unit: unit to failure.
    """

    by_unit: Mapping[str, UnitFailure]

    @property
    def words(self) -> str:
        """The units in one line, each with its reason where that is known."""
        return ", ".join(
            f"{name} ({failure.why})" if failure.why else name
            for name, failure in self.by_unit.items()
        )

    @property
    def remedy(self) -> str:
        """Module text for all of them, ``""`` where nobody knows any."""
        if not any(failure.remedy for failure in self.by_unit.values()):
            return ""
        texts = [
            failure.remedy or f"# {name}: read why, then correct it: journalctl -b -u {name}"
            for name, failure in self.by_unit.items()
        ]
        return "\n".join(dict.fromkeys(texts))  # two may want the same account


def why_failed(journals: Mapping[str, Sequence[str]], host: HostConfig) -> UnitFailures:
    """Return why units failed, from their journals and from what is declared of them.

    :param journals: unit, with its suffix, to lines of its journal, systemd's own among them,
        oldest first.
    """
    return UnitFailures({name: _why(name, host, said) for name, said in journals.items()})


def _why(name: str, host: HostConfig, said: Sequence[str]) -> UnitFailure:
    unit = host.units.get(name) or host.units.get(_template(name))
    failed = _Failed(name=name, unit=unit, host=host, said=said)
    if step := failed.told(_STEP):
        if known := _BY_STEP.get(step["step"]):
            return known(failed, step["program"])
        return UnitFailure(why=f"systemd cannot set it up ({step['step']}): {step['error']}")
    exited = failed.told(_EXITED)
    if exited and int(exited["status"]) in _OF_SYSTEMD and exited["step"] in _BY_STEP:
        return _BY_STEP[exited["step"]](failed, "")
    if any(_NO_ENVIRONMENT in line for line in said):
        return _environment(failed)
    told = failed.told(_RESULT)
    result = told["result"] if told else "exit-code"
    if result == "exit-code" and exited:
        return _ended(failed, exited["status"])
    if result == "timeout" and failed.last("Type") in _SAYS_READY:
        return _unready(failed, failed.last("Type"))
    return UnitFailure(why=_RESULTS.get(result, ""))


class _Failed(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    unit: Unit | None
    host: HostConfig
    said: Sequence[str]

    @property
    def option(self) -> str:
        stem = (self.unit.name if self.unit is not None else self.name).rpartition(".")[0]
        return f'systemd.services."{stem}".serviceConfig'

    def told(self, what: re.Pattern[str]) -> re.Match[str] | None:
        """Return the last line of its journal that says such a thing."""
        return next((m for line in reversed(self.said) if (m := what.search(line))), None)

    def last(self, key: str) -> str:
        values = self.unit.setting("Service", key) if self.unit is not None else ()
        return values[-1] if values else ""


def _account(failed: _Failed, _program: str) -> UnitFailure:
    user = failed.last("User")
    if not user:
        return UnitFailure(why="its account is not there")
    if user in failed.host.users or not _PLAIN.fullmatch(user):
        return UnitFailure(why=f"its account {user} is not there, though the host declares it")
    return UnitFailure(
        why=f"its account {user} is not there, and the host declares none",
        remedy=f'users.users."{user}" = {{ isSystemUser = true; group = "{user}"; }};\n'
        f'users.groups."{user}" = {{ }};',
    )


def _group(failed: _Failed, _program: str) -> UnitFailure:
    groups = [failed.last("Group"), *failed.last("SupplementaryGroups").split()]
    named = [group for group in groups if group and _PLAIN.fullmatch(group)]
    if len(named) != 1:
        return UnitFailure(why=f"one of its groups is not there: {', '.join(named) or 'no name'}")
    return UnitFailure(
        why=f"its group {named[0]} is not there", remedy=f'users.groups."{named[0]}" = {{ }};'
    )


def _working_directory(failed: _Failed, _program: str) -> UnitFailure:
    path = failed.last("WorkingDirectory").removeprefix("-")
    if not path.startswith("/"):
        return UnitFailure(why="it cannot enter its working directory")
    return UnitFailure(
        why=f"it cannot enter its working directory {path}", remedy=_made(failed, path)
    )


def _namespace(failed: _Failed, _program: str) -> UnitFailure:
    missing = failed.told(_NAMESPACE)
    if not missing:
        return UnitFailure(why="systemd cannot make its view of the file system")
    path = missing["path"]
    return UnitFailure(
        why=f"{path}, which its unit names, is not there", remedy=_made(failed, path)
    )


def _program(failed: _Failed, program: str) -> UnitFailure:
    if not program:
        return UnitFailure(why="its program cannot be started")
    return UnitFailure(
        why=f"its program {program} cannot be started",
        remedy=f"# {failed.name} starts {program}: write it by its package, as in\n"
        '#   ExecStart = "${pkgs.hello}/bin/hello";',
    )


def _ended(failed: _Failed, status: str) -> UnitFailure:
    """Tell of a program that ran and failed: only what it says itself may tell why."""
    why = f"it ended with exit status {status}"
    refused = failed.told(_READ_ONLY)
    if not refused or not failed.last("ProtectSystem"):
        return UnitFailure(why=why)
    path = refused["path"]
    above = path.rpartition("/")[0]
    why = f"{why}: it may not write {path}, since ProtectSystem= is {failed.last('ProtectSystem')}"
    if above.count("/") < 2 or above in _SHARED or above.startswith(_NEVER_WRITTEN):
        return UnitFailure(why=why)
    return UnitFailure(why=why, remedy=f'{failed.option}.ReadWritePaths = [ "{above}" ];')


def _unready(failed: _Failed, kind: str) -> UnitFailure:
    return UnitFailure(
        why=f"it did not say in time that it is ready, as Type={kind} demands",
        remedy=f"# {failed.name} counts as started once it {_SAYS_READY[kind]}: if its program does not do so,\n"
        f'#   {failed.option}.Type = lib.mkForce "exec";\n'
        f"# if it is only slow, raise {failed.option}.TimeoutStartSec.",
    )


_BY_STEP: Mapping[str, Callable[[_Failed, str], UnitFailure]] = {
    "CHDIR": _working_directory,
    "EXEC": _program,
    "GROUP": _group,
    "NAMESPACE": _namespace,
    "USER": _account,
}


def _environment(failed: _Failed) -> UnitFailure:
    values = failed.unit.setting("Service", "EnvironmentFile") if failed.unit is not None else ()
    needed = [path for path in values if not path.startswith("-")]
    if len(needed) != 1:
        return UnitFailure(why="a file of its EnvironmentFile= is not there")
    return UnitFailure(
        why=f"its EnvironmentFile {needed[0]} is not there",
        remedy=f"# Have {needed[0]} made before it starts, or let it do without:\n"
        f"{failed.option}.EnvironmentFile = lib.mkForce {json.dumps(f'-{needed[0]}')};",
    )


def _made(failed: _Failed, path: str) -> str:
    """Return the module text that has a directory made before the service starts."""
    if not _PLAIN.fullmatch(path):
        return ""
    for parent, key in _MADE_BELOW.items():
        if path.startswith(parent) and not failed.last(key):
            return f'{failed.option}.{key} = "{path.removeprefix(parent)}";'
    owner = failed.last("User")
    owner = owner if _PLAIN.fullmatch(owner) else "root"
    rule = f'systemd.tmpfiles.settings."{failed.name.rpartition(".")[0]}"."{path}".d'
    return f'{rule} = {{ mode = "0750"; user = "{owner}"; }};'


def _template(name: str) -> str:
    stem, _, suffix = name.rpartition(".")
    return f"{stem.partition('@')[0]}@.{suffix}" if "@" in stem else name
