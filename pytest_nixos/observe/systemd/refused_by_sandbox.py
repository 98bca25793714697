"""Why a service failed whose own unit forbids it what it does: the words of its program beside what is
declared, systemd.exec(5).
"""

from __future__ import annotations

import re
from collections.abc import Callable

from pytest_nixos.observe.systemd.failed_unit import FailedUnit, UnitFailure

__all__ = ["failure_by_sandbox"]

_FAMILY = re.compile(r"Address family not supported|EAFNOSUPPORT")
_AT_HOME = re.compile(
    r"(?P<path>/(?:home|root|run/user)(?:/[\w@./+-]*\w)?)['\"]?: (?:Permission denied|No such file|permission denied|no such file)"
    r"|(?:Permission denied|No such file or directory): ['\"](?P<of_python>/(?:home|root|run/user)[\w@./+-]*)"
)
_NO_NEW = re.compile(r'"?no new privileges"? flag', re.IGNORECASE)
# Each of them implies it for an account other than root.
_IMPLY = (
    *("DynamicUser", "LockPersonality", "MemoryDenyWriteExecute", "PrivateDevices", "ProtectClock"),
    *("ProtectHostname", "ProtectKernelLogs", "ProtectKernelModules", "ProtectKernelTunables"),
    *("RestrictAddressFamilies", "RestrictNamespaces", "RestrictRealtime", "RestrictSUIDSGID"),
    *("SystemCallArchitectures", "SystemCallFilter", "SystemCallLog"),
)
# nginx and Go; Node; the traceback and the end of Python's.
_MAY_NOT_BIND = re.compile(
    r"\bbind(?:: |\(\).*)\(?(?:\d+: )?[Pp]ermission denied|listen EACCES: permission denied"
)
_BIND_OF_PYTHON = re.compile(r"\.(?:server_)?bind\(")
_DENIED_TO_PYTHON = re.compile(r"PermissionError: \[Errno 13\] Permission denied$")
_KERNEL_FILE = re.compile(r"(?P<path>/(?:proc/sys|sys)/[\w@./+-]*\w)['\"]?: Read-only file system")
_DEVICE = re.compile(
    r"(?P<path>/dev/[\w/-]*\w)['\"]?: (?:No such file|Operation not permitted|Permission denied)"
)
_TOO_MANY = re.compile(r"[Tt]oo many open files|\bEMFILE\b")
_PORTS = "CAP_NET_BIND_SERVICE"


def failure_by_sandbox(failed: FailedUnit, ended: str) -> UnitFailure | None:
    """Tell of a program that its own unit kept from its work, ``None`` for any other.

    :param ended: a clause about its end.
    """
    found = (look(failed, ended) for look in _LOOKS)
    return next((failure for failure in found if failure is not None), None)


def _family(failed: FailedUnit, ended: str) -> UnitFailure | None:
    allowed = failed.words("RestrictAddressFamilies")
    if not allowed or not failed.told(_FAMILY):
        return None
    return UnitFailure(
        why=f"{ended}: it may have no such socket, since RestrictAddressFamilies= is {allowed}",
        remedy=f'{failed.config}.RestrictAddressFamilies = lib.mkForce [ "AF_UNIX" "AF_INET" "AF_INET6" ];',
    )


def _home(failed: FailedUnit, ended: str) -> UnitFailure | None:
    protect = failed.last("ProtectHome")
    found = failed.told(_AT_HOME)
    if failed.is_off("ProtectHome") or protect == "read-only" or not found:
        return None
    path = found["path"] or found["of_python"]
    return UnitFailure(
        why=f"{ended}: it does not see {path}, since ProtectHome= is {protect}",
        remedy=f'# "read-only" is enough where {failed.name} writes nothing there:\n{failed.config}.ProtectHome = lib.mkForce false;',
    )


def _privileges(failed: FailedUnit, ended: str) -> UnitFailure | None:
    if not failed.told(_NO_NEW):
        return None
    implying = [key for key in _IMPLY if not failed.is_off(key)]
    if not implying and not failed.is_on("NoNewPrivileges"):
        return None
    by = "NoNewPrivileges=" if failed.is_on("NoNewPrivileges") else f"{', '.join(implying)}"
    why = f"{ended}: it may become nobody else (sudo, setuid), since {by} forbids it"
    if implying:
        return UnitFailure(
            why=why,
            remedy=f"# {failed.name}: run it as the account that it needs ({failed.config}.User), in place of sudo.",
        )
    return UnitFailure(why=why, remedy=f"{failed.config}.NoNewPrivileges = lib.mkForce false;")


def _port(failed: FailedUnit, ended: str) -> UnitFailure | None:
    of_python = failed.told(_DENIED_TO_PYTHON) and failed.told(_BIND_OF_PYTHON)
    if not (failed.told(_MAY_NOT_BIND) or of_python):
        return None
    lines = [f'{failed.config}.AmbientCapabilities = [ "{_PORTS}" ];']
    bounds = failed.unit.setting("Service", "CapabilityBoundingSet") if failed.unit else ()
    bounded = bool(bounds) and _PORTS not in " ".join(bounds) and not bounds[0].startswith("~")
    if bounded:
        lines.append(f'{failed.config}.CapabilityBoundingSet = lib.mkForce [ "{_PORTS}" ];')
    if _PORTS in failed.words("AmbientCapabilities"):
        del lines[0]
    why = f"{ended}: its account may not listen on a port below 1024"
    return UnitFailure(
        why=f"{why}, since CapabilityBoundingSet= lacks {_PORTS}" if bounded else why,
        remedy="\n".join(lines),
    )


def _kernel(failed: FailedUnit, ended: str) -> UnitFailure | None:
    found = failed.told(_KERNEL_FILE)
    if not found:
        return None
    of_groups = found["path"].startswith("/sys/fs/cgroup")
    key = "ProtectControlGroups" if of_groups else "ProtectKernelTunables"
    if failed.is_off(key):
        return None
    return UnitFailure(
        why=f"{ended}: it may not write {found['path']}, since {key}= is {failed.last(key)}",
        remedy=f"{failed.config}.{key} = lib.mkForce false;",
    )


def _device(failed: FailedUnit, ended: str) -> UnitFailure | None:
    found = failed.told(_DEVICE)
    if not found or not failed.is_on("PrivateDevices"):
        return None
    return UnitFailure(
        why=f"{ended}: it does not see {found['path']}, since PrivateDevices= is on",
        remedy=f"{failed.config}.PrivateDevices = lib.mkForce false;",
    )


def _files(failed: FailedUnit, ended: str) -> UnitFailure | None:
    limit = failed.last("LimitNOFILE")
    if not limit or not failed.told(_TOO_MANY):
        return None
    return UnitFailure(
        why=f"{ended}: it may open LimitNOFILE={limit} files",
        remedy=f"# {failed.name} opens more than LimitNOFILE={limit} files: raise {failed.config}.LimitNOFILE",
    )


_LOOKS: tuple[Callable[[FailedUnit, str], UnitFailure | None], ...] = (
    _port,
    _family,
    _home,
    _privileges,
    _kernel,
    _device,
    _files,
)
