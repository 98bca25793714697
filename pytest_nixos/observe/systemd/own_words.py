"""Why a service failed, from the last words of its own program."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pytest_nixos.observe.systemd.failed_unit import PLAIN, FailedUnit, UnitFailure, having_made
from pytest_nixos.observe.systemd.refused_by_sandbox import failure_by_sandbox

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
_MOST_SAID = 200
# A program often ends with a summary of what it has said before: words of errno(3), of a logger, of a parser.
_TELLING = re.compile(
    r"no such file|permission denied|not permitted|read-only file system|address already in use|can't assign|cannot assign"
    r"|address family not supported|connection refused|does not exist|not found|unknown (?:directive|option|key|field|parameter)"
    r"|invalid|bad directive|unrecognized|unexpected|no new privileges|too many open files|cannot allocate"
    r"|\[(?:emerg|crit|alert)\]|\blevel=(?:error|fatal)\b|\bfatal\b|\bpanic:|\berror:|E\w{4,}: ",
    re.IGNORECASE,
)
# What sums up what was said before, or does not end a program.
_NOT_TELLING = re.compile(
    r"could not load \S+$|contains errors$|test failed$|-- skipping|\bwarn(?:ing)?\b", re.IGNORECASE
)
# What a logger writes before and behind what it has to say; a store path says enough by its name.
_OF_LOGGER = re.compile(r"(?<![\w.-])(?:ts|time|caller|level|source|file)=(?:\"[^\"]*\"|\S+)\s*")
_HASH = re.compile(r"/nix/store/[0-9a-z]{32}-")
_NOT_THERE = re.compile(
    r"(?P<path>/(?:srv|run|var/(?:lib|cache|log))/[\w@./+-]*\w)['\"]?: No such file or directory"
    r"|No such file or directory: ['\"]?(?P<of_python>/(?:srv|run|var/(?:lib|cache|log))/[\w@./+-]*\w)"
    r"|(?:open|stat|mkdir|chdir|lstat) (?P<of_go>/(?:srv|run|var/(?:lib|cache|log))/[\w@./+-]*\w): no such file"
)
# A redirection of bash, what programs say of a file that they make, and the name of a file.
_WRITTEN = re.compile(r"line \d+: /|\b(?:creat|writ)(?:e|ing)\b", re.IGNORECASE)
_FILE = re.compile(r"\.\w{1,6}$")
_DENIED = re.compile(
    r"(?P<path>/(?:etc|srv|run|var/(?:lib|cache|log))/[\w@./+-]*\w)['\"]?: Permission denied"
    r"|Permission denied: ['\"]?(?P<of_python>/(?:srv|run|var/(?:lib|cache|log))/[\w@./+-]*\w)"
    r"|(?:open|stat|mkdir|chdir|lstat) (?P<of_go>/(?:srv|run|var/(?:lib|cache|log))/[\w@./+-]*\w): permission denied"
)
# OpenSSL, of a certificate or a key that a server reads.
_KEY_DENIED = re.compile(
    r"certificate(?: key)? \"(?P<path>/[\w@./+-]*\w)\".*(?:[Pp]ermission denied|No such file)"
    r"|(?:[Pp]ermission denied|No such file or directory):calling fopen\((?P<of_library>/[\w@./+-]*\w)"
)
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
    """Return the last line of its own programs that tells of a failure, or else their last one; ``""``
    for none. Of several runs the last one counts.
    """
    said: list[str] = []
    for line in reversed(failed.said):
        before = _BEFORE.match(line)
        if before is None:
            continue
        if before["program"] not in _OF_SYSTEMD:
            said.append(before["text"])
        elif said and before["text"].startswith(("Starting ", "Started ")):
            break
    if not said:
        return ""
    telling = next(
        (text for text in said if _TELLING.search(text) and not _NOT_TELLING.search(text)), said[0]
    )
    return _HASH.sub("…/", _OF_LOGGER.sub("", telling)).strip()[:_MOST_SAID]


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
    if refused_by_unit := failure_by_sandbox(failed, ended):
        return refused_by_unit
    refused = failed.told(_READ_ONLY)
    if refused and failed.last("ProtectSystem"):
        return _read_only(failed, ended, refused["path"])
    said = last_words(failed)
    why = f"{ended}, its last words: {said}" if said else ended
    if key := _KEY_DENIED.search(said):
        return UnitFailure(why=why, remedy=_without_key(failed, key))
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
    if path.startswith("/etc/"):
        entry = f'environment.etc."{path.removeprefix("/etc/")}"'
        return f"# {failed.name}: {path} {what}: {entry} says whose it is (user, group, mode) and what is in it."
    if _WRITTEN.search(found.string) or _FILE.search(path):
        folder = path.rpartition("/")[0]
        made = (
            having_made(failed, folder) if folder.count("/") > 1 and folder not in _SHARED else ""
        )
        if not made or _has_made(failed, folder):
            return ""
        return f"# {failed.name}: {path} {what}. Have its directory made before it starts:\n{made}"
    made = having_made(failed, path) if PLAIN.fullmatch(path) else ""
    made = "\n".join(f"#   {line.removeprefix('# ')}" for line in made.split("\n"))
    return f"# {failed.name}: {path} {what}; if it is a directory, have it made before it starts:\n{made}"


def _without_key(failed: FailedUnit, found: re.Match[str]) -> str:
    """Tell of a certificate or a key that a service could not read."""
    path = found["path"] or found["of_library"]
    if "denied" not in found.string.lower():
        return f"# {failed.name}: {path} is not there: correct the path, or have what makes it run before (requires, after)."
    user = failed.last("User") or "its account"
    return (
        f"# {failed.name}: {path} is not open to {user}: have what makes it give it to a group of {user}"
        f" (chown root:GROUP, chmod 0640),\n# and its folders too; the certificate itself may be open to all."
    )


def _has_made(failed: FailedUnit, folder: str) -> bool:
    """Whether a directory is one that systemd makes for the service."""
    names = failed.words("StateDirectory", "CacheDirectory", "LogsDirectory", "RuntimeDirectory")
    return any(folder.endswith(f"/{name.partition(':')[0]}") for name in names.split())


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
