"""Why a service failed, from the result that systemd keeps of it."""

from __future__ import annotations

import re

from pytest_nixos.observe.systemd.failed_unit import FailedUnit, UnitFailure
from pytest_nixos.observe.systemd.own_words import last_words

__all__ = ["failure_by_result"]

_SIGNAL = re.compile(r"process exited, code=(?:killed|dumped), status=\d+/(?P<signal>[A-Z0-9]+)")
# systemd.service(5), Result=.
_RESULTS = {
    "core-dump": "it crashed and dumped core",
    "exec-condition": "its ExecCondition= ended as a failure",
    "oom-kill": "it was killed for want of memory",
    "protocol": "it ended before it said that it is ready, as its Type= demands",
    "resources": "systemd could not set it up",
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
# src/core/service.c of systemd; options of nixpkgs (nixos/lib/systemd-unit-options.nix).
_LATE_STEP = re.compile(r": (?P<step>start-pre|start-post) operation timed out")
_STEPS = {"start-pre": "preStart", "start-post": "postStart"}
_RESTART_ALL = frozenset({"always", "on-success"})
_ENDED_WELL = re.compile(r": Deactivated successfully\.$|: Succeeded\.$")
# What a program that makes code as it runs (JavaScript, Java, .NET, LuaJIT) ends with where it may not.
_BY_CRASH = frozenset({"SEGV", "TRAP", "ABRT", "ILL", "BUS"})


def failure_by_result(failed: FailedUnit, result: str) -> UnitFailure:
    """Tell of a service that did not end by itself.

    :param result: systemd's word, as ``watchdog``.
    """
    if result == "timeout":
        return _late(failed)
    if result == "watchdog":
        return _silent(failed)
    if result == "oom-kill":
        return _out_of_memory(failed)
    if (
        result == "start-limit-hit"
        and failed.last("Restart") in _RESTART_ALL
        and failed.told(_ENDED_WELL)
    ):
        return UnitFailure(
            why=f"it ends with success, and Restart={failed.last('Restart')} starts it again, too often in a short time",
            remedy=f"# If {failed.name} does its work and ends:\n"
            f'{failed.config} = {{ Type = lib.mkForce "oneshot"; Restart = lib.mkForce "no"; }};\n'
            "# if it goes into the background by itself, have it stay in the foreground.",
        )
    signal = failed.told(_SIGNAL) if result in ("core-dump", "signal") else None
    if signal is not None:
        return _by_signal(failed, _RESULTS[result], signal["signal"])
    why = _RESULTS.get(result, "")
    said = last_words(failed)
    return UnitFailure(why=f"{why}, its last words: {said}" if why and said else why)


def _late(failed: FailedUnit) -> UnitFailure:
    if step := failed.told(_LATE_STEP):
        option = _STEPS[step["step"]]
        return UnitFailure(
            why=f"its {option} did not end in the time that it has",
            remedy=f"# {failed.name}: see what {failed.option}.{option} waits for, which has to end before it counts as started:\n"
            f"# journalctl -b -u {failed.name}; if it is only slow, raise {failed.config}.TimeoutStartSec.",
        )
    kind = failed.last("Type")
    if kind in _SAYS_READY:
        return UnitFailure(
            why=f"it did not say in time that it is ready, as Type={kind} demands",
            remedy=f"# {failed.name} counts as started once it {_SAYS_READY[kind]}: if its program does not do so,\n"
            f'#   {failed.config}.Type = lib.mkForce "exec";\n'
            f"# if it is only slow, raise {failed.config}.TimeoutStartSec.",
        )
    if kind == "oneshot":
        return UnitFailure(
            why="it did not end in the time that it has, as Type=oneshot demands",
            remedy=f"# {failed.name} counts as started once it ends: if it is to run on,\n"
            f'#   {failed.config}.Type = lib.mkForce "exec";\n'
            f"# if it is only slow, raise {failed.config}.TimeoutStartSec.",
        )
    said = last_words(failed)
    return UnitFailure(
        why=_RESULTS["timeout"] + (f", its last words: {said}" if said else ""),
        remedy=f"# {failed.name}: see what it waits for, journalctl -b -u {failed.name}; if it is only slow, raise\n"
        f"# {failed.config}.TimeoutStartSec, or TimeoutStopSec where it does not end.",
    )


def _silent(failed: FailedUnit) -> UnitFailure:
    every = failed.last("WatchdogSec")
    return UnitFailure(
        why=_RESULTS["watchdog"] + (f", as WatchdogSec={every} demands" if every else ""),
        remedy=f"# {failed.name} has to say WATCHDOG=1 by sd_notify(3) within each WatchdogSec=: if its program does not,\n"
        f"{failed.config}.WatchdogSec = lib.mkForce 0;",
    )


def _out_of_memory(failed: FailedUnit) -> UnitFailure:
    limit = failed.last("MemoryMax")
    if not limit or limit == "infinity":
        return UnitFailure(why=_RESULTS["oom-kill"])
    return UnitFailure(
        why=f"{_RESULTS['oom-kill']}: it may take MemoryMax={limit}",
        remedy=f"# {failed.name} takes more than MemoryMax={limit}: have it take less, or raise\n"
        f"# {failed.config}.MemoryMax",
    )


def _by_signal(failed: FailedUnit, why: str, signal: str) -> UnitFailure:
    allowed = failed.words("SystemCallFilter")
    if signal == "SYS" and allowed:
        return _forbidden_call(failed, why, allowed)
    if signal in _BY_CRASH and failed.is_on("MemoryDenyWriteExecute"):
        return UnitFailure(
            why=f"{why} ({signal}), and MemoryDenyWriteExecute= lets it make no code as it runs",
            remedy=f"# Where {failed.name} compiles as it runs (JavaScript, Java, .NET, LuaJIT):\n"
            f"{failed.config}.MemoryDenyWriteExecute = lib.mkForce false;",
        )
    return UnitFailure(why=f"{why} (signal {signal})")


def _forbidden_call(failed: FailedUnit, why: str, allowed: str) -> UnitFailure:
    told = f"{why}: it made a system call that SystemCallFilter={allowed} forbids"
    which = f"# Which call it was: journalctl -b -g SECCOMP, or coredumpctl info {failed.name}"
    if allowed.startswith("~") or "@system-service" in allowed.split():
        return UnitFailure(
            why=told, remedy=f"{which};\n# allow it: {failed.config}.SystemCallFilter"
        )
    return UnitFailure(
        why=told,
        remedy=f'{which}\n{failed.config}.SystemCallFilter = lib.mkForce [ "@system-service" ];',
    )
