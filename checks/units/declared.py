"""Declared units, and what systemd makes of them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping

from pytest_nixos import HostConfig, Unit, observe

__all__ = [
    "accepting_instance",
    "failed_requirements",
    "has_run",
    "missing_program",
    "nearest_directive",
    "never_elapses",
    "never_started",
    "own_started_by_others",
    "pulled_in_by_nothing",
    "refusals",
]

_REFUSED = frozenset({"bad-setting", "error"})
# What nothing starts by itself, and is of no use unless it is started.
_STARTED_BY_OTHERS = (".service", ".timer", ".socket")
_REQUIRES = ("Requires", "Requisite", "BindsTo")
_STARTERS = (
    "WantedBy",
    "RequiredBy",
    "RequisiteOf",
    "BoundBy",
    "UpheldBy",
    "TriggeredBy",
    "OnFailureOf",
    "OnSuccessOf",
    "ConsistsOf",
    "BusName",
)
_USEC = re.compile(r"USec$")
# Properties that are no directives, and directives that systemctl(1) shows by other names:
# systemd.unit(5), systemd.timer(5), systemd.socket(5), systemd.path(5).
_NO_DIRECTIVES = frozenset(
    {"TimersCalendar", "TimersMonotonic", "Conditions", "Asserts", "Paths", "Listen"}
)
_CHECKED = (
    *("PathExists", "PathExistsGlob", "PathIsDirectory", "PathIsSymbolicLink", "PathIsMountPoint"),
    *("PathIsReadWrite", "DirectoryNotEmpty", "FileNotEmpty", "FileIsExecutable", "User", "Group"),
    *("Architecture", "Virtualization", "Host", "KernelCommandLine", "KernelVersion", "Security"),
    *("Capability", "ACPower", "NeedsUpdate", "FirstBoot", "ControlGroupController"),
    *("Memory", "CPUs"),
)
_WITHOUT_PROPERTY = {
    "": tuple(f"{kind}{what}" for kind in ("Condition", "Assert") for what in _CHECKED),
    "timer": (
        *("OnActiveSec", "OnBootSec", "OnStartupSec", "OnUnitActiveSec", "OnUnitInactiveSec"),
        *("OnCalendar", "AccuracySec", "RandomizedDelaySec", "Persistent", "Unit", "WakeSystem"),
    ),
    "socket": (
        *("ListenStream", "ListenDatagram", "ListenSequentialPacket", "ListenFIFO"),
        "ListenNetlink",
        *("Service", "SocketMode", "SocketUser", "SocketGroup", "Accept"),
    ),
    "path": (
        *("PathExists", "PathExistsGlob", "PathChanged", "PathModified", "DirectoryNotEmpty"),
        "Unit",
    ),
    "service": ("EnvironmentFile", "ExecStart", "RestartSec", "TimeoutSec", "SystemCallFilter"),
}
_NOT_EXECUTABLE = re.compile(r"Command (?P<path>\S+) is not executable: .*")
_FILLED_LATER = ("/run/", "/var/", "/home/", "/root/", "/srv/", "/opt/", "/mnt/")
# "infinity", and 2**64 - 1 in older releases, is how systemd says "never".
_NEVER = frozenset({"", "0", "infinity", "18446744073709551615", "n/a"})


def accepting_instance(socket: Unit) -> str:
    """Return an instance of the template that a socket starts for each connection, ``""`` if it
    starts one service for all: systemd knows none before somebody connects.
    """
    if not socket.is_on("Socket", "Accept"):
        return ""
    return f"{socket.name.removesuffix('.socket')}@test.service"


def missing_program(unit: str, report: observe.UnitFileReport) -> str:
    """Return what systemd says of a program that a unit starts and that is not there, ``""`` if it
    says nothing. Programs in places that are filled while the host runs may come later.
    """
    found = (_NOT_EXECUTABLE.match(said) for said in report.of(unit))
    return next((f[0] for f in found if f and not f["path"].startswith(_FILLED_LATER)), "")


def refusals(
    declared: Mapping[str, Unit], states: Mapping[str, observe.UnitState]
) -> Mapping[str, str]:
    """Return the declared units that systemd did not load, with what it says of them."""
    found = {}
    for name, unit in declared.items():
        state = states.get(name)
        if state is None:
            found[name] = "systemd gave no answer"
        elif state.get("LoadState") in _REFUSED:
            found[name] = f"{state.get('LoadState')}: {_load_error(state)}"
        elif state.is_masked:
            found[name] = "masked, though it is declared and enabled"
        elif state.get("LoadState") == "not-found" and _has_body(unit):
            found[name] = "declared, and systemd has no such unit"
    return found


def never_started(
    declared: Mapping[str, Unit], states: Mapping[str, observe.UnitState], running: Iterable[str]
) -> Mapping[str, str]:
    """Return the units that something running wants and that systemd never started, with what is
    known of why.

    :param running: targets and other units that are active now.

    A unit whose condition does not hold is skipped as declared, one that failed is told as failed,
    and one that ran and ended well has done its work: none of them is returned.
    """
    active = set(running)
    found = {}
    for name, unit in declared.items():
        state = states.get(name)
        wanted = sorted(active & set(unit.wanted_by))
        if state is None or not wanted or state.get("LoadState") != "loaded":
            continue
        if state.get("ActiveState") != "inactive" or has_run(state) or _was_skipped(state):
            continue
        found[name] = f"wanted by {', '.join(wanted)} and inactive; systemd never started it"
    return found


def failed_requirements(
    name: str, declared: Mapping[str, Unit], states: Mapping[str, observe.UnitState]
) -> frozenset[str]:
    """Return the failed units without which systemd does not start a unit, by way of others too."""
    waiting, seen = [name], {name}
    while waiting:
        waits = waiting.pop()
        unit = declared.get(waits)
        needed = {word for key in _REQUIRES if unit is not None for word in unit.words("Unit", key)}
        # `requiredBy` stands in no unit file.
        needed |= {n for n, state in states.items() if waits in state.get("RequiredBy").split()}
        waiting += sorted(needed - seen)
        seen |= needed
    return frozenset(
        n for n in seen - {name} if n in states and states[n].get("ActiveState") == "failed"
    )


def never_elapses(name: str, state: observe.UnitState, triggered: observe.UnitState | None) -> str:
    """Return why a loaded timer never does its work; ``""`` if it does.

    :param triggered: the unit that it starts.
    """
    if triggered is not None and triggered.get("LoadState") in ("not-found", *_REFUSED):
        return f"it starts {triggered.name}, which systemd could not load ({triggered.get('LoadState')})"
    if not state.is_running:
        return ""  # never started, which is another control's finding
    due = [state.get("NextElapseUSecRealtime"), state.get("NextElapseUSecMonotonic")]
    if any(time not in _NEVER for time in due) or state.get("LastTriggerUSec") not in _NEVER:
        return ""
    if state.get("SubState") == "running":  # its unit runs now, so it has elapsed
        return ""
    return f"{name} has no next time and has never elapsed"


def pulled_in_by_nothing(state: observe.UnitState) -> bool:
    """Whether nothing that systemd knows ever starts a unit, and it has not run since the boot."""
    return not any(state.get(name) for name in _STARTERS) and not has_run(state)


def own_started_by_others(host: HostConfig) -> Mapping[str, Unit]:
    """Return the services, timers and sockets of a host that are of no use unless something starts
    them.

    Services that modules of nixpkgs alone declare are left out: each host has some that only people
    start (``nix-gc``, ``console-getty``), and other ones in each release.
    """
    own = host.own_services
    return {
        name: unit
        for name, unit in observe.declared_units(host, *_STARTED_BY_OTHERS).items()
        if not name.endswith(".service")
        or ((own is None or name in own) and unit.setting("Service", "ExecStart"))
    }


def nearest_directive(written: str, properties: Iterable[str], unit: str = "") -> str:
    """Return the directive that was probably meant, or ``""``.

    :param properties: those of the unit by systemctl(1): most are called as their directives are.
    :param unit: its name, whose suffix tells of further directives.
    """
    known = {_USEC.sub("Sec", name) for name in properties} - _NO_DIRECTIVES
    known.update(_WITHOUT_PROPERTY[""], _WITHOUT_PROPERTY.get(unit.rpartition(".")[2], ()))
    close = difflib.get_close_matches(written, sorted(known), n=1, cutoff=0.75)
    return close[0] if close else ""


def _load_error(state: observe.UnitState) -> str:
    # 'org.freedesktop.systemd1.BadUnitSetting "Unit backup.timer has a bad unit file setting."'
    _, _, text = state.get("LoadError").partition(" ")
    return text.strip('"') or "systemd gives no reason"


def _has_body(unit: Unit) -> bool:
    """Whether a unit is declared as a whole, not as a few settings for one that a package may
    bring.
    """
    return bool(unit.setting("Service", "ExecStart")) or not unit.name.endswith(".service")


def has_run(state: observe.UnitState) -> bool:
    """Whether a unit has been started since the boot."""
    return state.get("InactiveExitTimestampMonotonic") not in ("", "0")


def _was_skipped(state: observe.UnitState) -> bool:
    checked = state.get("ConditionTimestampMonotonic") not in ("", "0")
    return checked and state.get("ConditionResult") == "no"
