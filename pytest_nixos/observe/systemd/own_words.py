"""Why a service failed, from the last words of its own program."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pytest_nixos.observe.systemd.failed_unit import PLAIN, FailedUnit, UnitFailure, having_made

__all__ = ["failure_in_own_words", "last_words", "may_lack_an_address"]

_READ_ONLY = re.compile(r"(?P<path>/[\w@./+-]*\w)['\"]?: Read-only file system")
# What bash and dash say, and how they end then.
_NO_COMMAND = re.compile(
    r"(?:line \d+: (?P<of_bash>\w[\w.+-]*): command|: \d+: (?P<of_dash>\w[\w.+-]*):) not found$"
)
_NOT_FOUND = "127"
# Of C, Go and Python; of Node.
_IN_USE = re.compile(r"[Aa]ddress (?:is )?already in use|Connection in use: |\bEADDRINUSE\b")
# Of an address, and not of a time of day.
_PORT = re.compile(r"(?:(?<![\sT:]\d\d):|\bport )(\d{2,5})\b")
_NUMBER = re.compile(r"(?<![\d.\w])(\d{2,5})\b")
# What the journal puts before a message: time, host, program.
_BEFORE = re.compile(r"^\S+ \S+ (?P<program>[^\s:\[]+)(?:\[\d+\])?: (?P<text>.*\S)")
_OF_SYSTEMD = frozenset({"systemd", "kernel"})
_MOST_SAID = 160
_NOT_THERE = re.compile(
    r"(?P<path>/(?:srv|run|var/(?:lib|cache|log))/[\w@./+-]*\w)['\"]?: No such file or directory"
    r"|No such file or directory: ['\"]?(?P<of_python>/(?:srv|run|var/(?:lib|cache|log))/[\w@./+-]*\w)"
    r"|(?:open|stat|mkdir|chdir|lstat) (?P<of_go>/(?:srv|run|var/(?:lib|cache|log))/[\w@./+-]*\w): no such file"
)
_DENIED = re.compile(
    r"(?P<path>/(?:srv|run|var/(?:lib|cache|log))/[\w@./+-]*\w)['\"]?: Permission denied"
    r"|Permission denied: ['\"]?(?P<of_python>/(?:srv|run|var/(?:lib|cache|log))/[\w@./+-]*\w)"
    r"|(?:open|stat|mkdir|chdir|lstat) (?P<of_go>/(?:srv|run|var/(?:lib|cache|log))/[\w@./+-]*\w): permission denied"
)
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


def may_lack_an_address(said: Sequence[str]) -> bool:
    """Whether a journal says that an address was taken, so that it is of use to know who listens."""
    return any(_IN_USE.search(line) for line in said)


def last_words(failed: FailedUnit) -> str:
    """Return the last line that its own programs wrote, ``""`` for none."""
    for line in reversed(failed.said):
        before = _BEFORE.match(line)
        if before is not None and before["program"] not in _OF_SYSTEMD:
            return before["text"][:_MOST_SAID]
    return ""


def failure_in_own_words(failed: FailedUnit, status: str) -> UnitFailure:
    """Tell of a program that ran and failed.

    :param status: its exit status.
    """
    ended = f"it ended with exit status {status}"
    missing = failed.told(_NO_COMMAND)
    if missing and status == _NOT_FOUND:
        return _without_command(failed, ended, missing["of_bash"] or missing["of_dash"])
    if in_use := failed.told(_IN_USE):
        return _taken(failed, ended, in_use.string)
    if failed.told(_MAY_NOT_BIND):
        return UnitFailure(
            why=f"{ended}: its account may not listen on a port below 1024",
            remedy=f'{failed.config}.AmbientCapabilities = [ "CAP_NET_BIND_SERVICE" ];',
        )
    refused = failed.told(_READ_ONLY)
    if refused and failed.last("ProtectSystem"):
        return _read_only(failed, ended, refused["path"])
    said = last_words(failed)
    why = f"{ended}, its last words: {said}" if said else ended
    if gone := _NOT_THERE.search(said):
        return UnitFailure(why=why, remedy=_lacking(failed, gone, "is not there"))
    if denied := _DENIED.search(said):
        owner = failed.last("User") or "its account"
        return UnitFailure(why=why, remedy=_lacking(failed, denied, f"is not open to {owner}"))
    return UnitFailure(why=why)


def _lacking(failed: FailedUnit, found: re.Match[str], what: str) -> str:
    """Tell of a path of its own that a service could not use: whether it is a directory that the
    service lacks, nobody but its author knows.
    """
    path = found["path"] or found["of_python"] or found["of_go"]
    made = having_made(failed, path) if PLAIN.fullmatch(path) else ""
    return f"# {failed.name}: {path} {what}; if it is a directory, have it made before it starts:\n#   {made}"


def _taken(failed: FailedUnit, ended: str, line: str) -> UnitFailure:
    """Tell who listens where a service wanted to."""
    start = _BEFORE.match(line)
    text = start["text"] if start is not None else line
    told = [int(number) for number in _PORT.findall(f" {text}")]
    named = [int(number) for number in _NUMBER.findall(failed.words("ExecStart", "Environment"))]
    for port in dict.fromkeys((*told, *named)):
        holders = failed.listening(port)
        if f"{failed.stem}.socket" in holders:
            return UnitFailure(
                why=f"{ended}: its own {failed.stem}.socket listens on port {port} already",
                remedy=f"# {failed.name} has to take the socket from systemd (sd_listen_fds(3)): if its program does not,\n"
                f'systemd.sockets."{failed.stem}".enable = false;',
            )
        if holders:
            who = " and ".join(holders)
            return UnitFailure(
                why=f"{ended}: {who} listens on port {port} already",
                remedy=f"# {failed.name} and {who} want the same port {port}: give one of them another one,"
                f" or do without one of the two.",
            )
    only = f"'sport = :{told[0]}'" if told else ""
    return UnitFailure(
        why=f"{ended}: another program listens on its address already",
        remedy=f"# {failed.name}: see who listens there, ss -lntup {only}".rstrip()
        + f"; then give one of the two another\n# address or port: {failed.option}",
    )


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
