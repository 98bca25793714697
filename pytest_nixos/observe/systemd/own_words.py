"""Why a service failed, from the last words of its own program."""

from __future__ import annotations

import re

from pytest_nixos.observe.systemd.failed_unit import FailedUnit, UnitFailure

__all__ = ["failure_in_own_words"]

_READ_ONLY = re.compile(r"(?P<path>/[\w@./+-]*\w)['\"]?: Read-only file system")
# What bash and dash say, and how they end then.
_NO_COMMAND = re.compile(
    r"(?:line \d+: (?P<of_bash>\w[\w.+-]*): command|: \d+: (?P<of_dash>\w[\w.+-]*):) not found$"
)
_NOT_FOUND = "127"
# Of C, Go and Python; of Node.
_IN_USE = re.compile(r"[Aa]ddress already in use|\bEADDRINUSE\b")
_MAY_NOT_BIND = re.compile(r"\bbind(?:: |\(\).*)\(?(?:\d+: )?[Pp]ermission denied")
# Nothing of a service is written there.
_NEVER_WRITTEN = ("/etc", "/nix", "/usr", "/boot", "/proc", "/sys", "/dev")
# What many services have their own directories in.
_SHARED = frozenset({"/var/lib", "/var/log", "/var/cache", "/var/tmp"})  # noqa: S108 - compared
# Packages of nixpkgs whose name is another than that of the command.
_PACKAGES = {
    "awk": "gawk",
    "dig": "dnsutils",
    "find": "findutils",
    "flock": "util-linux",
    "grep": "gnugrep",
    "ip": "iproute2",
    "lsblk": "util-linux",
    "mount": "util-linux",
    "mountpoint": "util-linux",
    "nc": "netcat",
    "nft": "nftables",
    "pgrep": "procps",
    "pkill": "procps",
    "ps": "procps",
    "sed": "gnused",
    "sqlite3": "sqlite",
    "ss": "iproute2",
    "ssh": "openssh",
    "sysctl": "procps",
    "systemctl": "systemd",
    "tar": "gnutar",
    "umount": "util-linux",
    "xargs": "findutils",
}
_SAME_NAME = frozenset(
    {
        "bash",
        "curl",
        "git",
        "gnupg",
        "gzip",
        "hostname",
        "iptables",
        "jq",
        "kmod",
        "openssl",
        "python3",
    }
    | {"restic", "rsync", "unzip", "wget", "xz", "zip", "zstd"}
)


def failure_in_own_words(failed: FailedUnit, status: str) -> UnitFailure:
    """Tell of a program that ran and failed.

    :param status: its exit status.
    """
    ended = f"it ended with exit status {status}"
    missing = failed.told(_NO_COMMAND)
    if missing and status == _NOT_FOUND:
        return _without_command(failed, ended, missing["of_bash"] or missing["of_dash"])
    if failed.told(_IN_USE):
        return UnitFailure(why=f"{ended}: another program listens on its address already")
    if failed.told(_MAY_NOT_BIND):
        return UnitFailure(
            why=f"{ended}: its account may not listen on a port below 1024",
            remedy=f'{failed.config}.AmbientCapabilities = [ "CAP_NET_BIND_SERVICE" ];',
        )
    refused = failed.told(_READ_ONLY)
    if refused and failed.last("ProtectSystem"):
        return _read_only(failed, ended, refused["path"])
    return UnitFailure(why=ended)


def _without_command(failed: FailedUnit, ended: str, command: str) -> UnitFailure:
    package = _PACKAGES.get(command, command if command in _SAME_NAME else "")
    return UnitFailure(
        why=f"{ended}: no command {command} in its PATH",
        remedy=f"{failed.option}.path = [ pkgs.{package} ];"
        if package
        else f"# {failed.name}: add the package that has {command}: {failed.option}.path",
    )


def _read_only(failed: FailedUnit, ended: str, path: str) -> UnitFailure:
    above = path.rpartition("/")[0]
    why = (
        f"{ended}: it may not write {path}, since ProtectSystem= is {failed.last('ProtectSystem')}"
    )
    if above.count("/") < 2 or above in _SHARED or above.startswith(_NEVER_WRITTEN):
        return UnitFailure(why=why)
    return UnitFailure(why=why, remedy=f'{failed.config}.ReadWritePaths = [ "{above}" ];')
