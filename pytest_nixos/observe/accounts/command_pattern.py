"""Commands as rules write them, sudoers(5): a program or a pattern of programs, and arguments."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase

__all__ = ["as_good_as_a_shell", "covers", "is_wild", "may_mean_the_same", "may_name"]

#: Programs that do whatever is typed.
_SHELL = re.compile(r"(?:ba|z|fi|da|k|mk|c|tc|a)?sh|nu|busybox|(?:python|perl|ruby|lua)[\d.]*|node")
#: Programs that start what their arguments name.
_STARTERS = frozenset(
    [
        "env",
        "sudo",
        "doas",
        "run0",
        "pkexec",
        "systemd-run",
        "nixos-rebuild",
        "nix",
        "nix-shell",
        "chroot",
        "nsenter",
        "unshare",
        "setpriv",
        "runuser",
        "nice",
        "setsid",
        "timeout",
        "strace",
        "xargs",
    ]
)
_NAMES = (
    "sh",
    "bash",
    "zsh",
    "fish",
    "dash",
    "ksh",
    "su",
    "python3",
    "perl",
    "busybox",
    *_STARTERS,
)
#: Where a host has them; a pattern of directories is held against these.
_FOLDERS = (
    *("/bin", "/usr/bin", "/sbin", "/usr/sbin", "/run/wrappers/bin", "/run/current-system/sw/bin"),
    *("/run/booted-system/sw/bin", "/nix/var/nix/profiles/default/bin", "/root/.nix-profile/bin"),
    *("/nix/var/nix/profiles/system/sw/bin", "/etc/profiles/per-user/name/bin"),
    "/nix/store/00000000000000000000000000000000-bash-5.2/bin",
)
#: Options of su that are followed by a value.
_WITH_VALUE = frozenset(
    ["-s", "--shell", "-g", "--group", "-G", "--supp-group", "-w", "--whitelist-environment"]
)


def is_wild(text: str) -> bool:
    """Whether a program or arguments are a wildcard or a regular expression."""
    return text.startswith("^") or any(character in text for character in "*?[")


def may_name(pattern: str, program: str) -> bool:
    """Whether a pattern of programs means one of them; a directory ends in ``/``."""
    if pattern.startswith("^"):
        if _is_costly(pattern):
            return True
        try:
            return re.search(pattern, program) is not None
        except re.error:
            return True
    if pattern.endswith("/"):
        return _matches(pattern.rstrip("/"), program.rpartition("/")[0])
    return _matches(pattern, program)


def _is_costly(expression: str) -> bool:
    """Whether an expression has what only POSIX has, or could take for ever."""
    quantifiers = re.findall(r"[*+{]", expression)
    return (
        "[[:" in expression or len(quantifiers) > 4 or re.search(r"\)[*+{]", expression) is not None
    )


def _matches(pattern: str, path: str) -> bool:
    """Whether a wildcard means a path; ``/`` is matched by no other character."""
    parts, places = pattern.split("/"), path.split("/")
    return len(parts) == len(places) and all(
        fnmatchcase(place, part) or "[:" in part  # a class of characters, which fnmatch lacks
        for place, part in zip(places, parts, strict=True)
    )


def covers(rule: str, command: str) -> bool:
    """Whether a rule certainly means whatever another allows."""
    if rule in ("ALL", command):
        return True
    (program, arguments), (other, others) = _split(rule), _split(command)
    is_clear = not program.startswith("^") and "[:" not in program
    if is_wild(other) or other.endswith("/") or other == "ALL" or not is_clear:
        return program == other and not arguments
    return may_name(program, other) and arguments in ("", others)


def may_mean_the_same(rule: str, command: str) -> bool:
    """Whether some command line may be meant by both."""
    if "ALL" in (rule, command):
        return True
    (program, arguments), (other, others) = _split(rule), _split(command)
    both_wild = all(is_wild(p) or p.endswith("/") for p in (program, other))
    # sudo knows a program by its file: the same name elsewhere may be a link to it.
    same_name = program.rpartition("/")[2] == other.rpartition("/")[2]
    if not (both_wild or same_name or may_name(program, other) or may_name(other, program)):
        return False
    loose = "" in (arguments, others) or is_wild(arguments) or is_wild(others)
    return loose or arguments == others


def as_good_as_a_shell(command: str) -> bool:
    """Whether who may run a command may run any command."""
    program, arguments = _split(command)
    if program in ("ALL", "sudoedit"):
        return command == "ALL" or arguments in ("", "*", "/*", "/etc/*")
    if not _may_be_shell(program):
        return False
    if arguments in ("", '""') or is_wild(arguments):
        return True
    return _is_open(program.rpartition("/")[2], arguments.split())


def _split(command: str) -> tuple[str, str]:
    program, _, arguments = command.partition(" ")
    return program, arguments.strip()


def _is_shell(name: str) -> bool:
    return _SHELL.fullmatch(name) is not None or name == "su" or name in _STARTERS


def _may_be_shell(program: str) -> bool:
    if program.startswith("^"):
        named = any(_is_shell(word) for word in re.findall(r"[\w-]+", program))
        return named or any(may_name(program, f"{f}/{n}") for f in _FOLDERS for n in _NAMES)
    folder, _, name = program.rpartition("/")
    if name and not is_wild(name):
        return _is_shell(name)
    if name and not any(_matches(name, one) for one in _NAMES):
        return False
    has_programs = folder.rpartition("/")[2] in ("bin", "sbin")
    return has_programs or any(_matches(folder, place) for place in _FOLDERS)


def _is_open(name: str, arguments: list[str]) -> bool:
    """Whether a shell or starter with these arguments waits for commands as root."""
    if name in _STARTERS:
        inner = [at for at, word in enumerate(arguments) if _may_be_shell(word)]
        only_options = all(word.startswith("-") for word in arguments)
        return any(as_good_as_a_shell(" ".join(arguments[at:])) for at in inner) or (
            only_options and name in ("sudo", "doas", "run0", "unshare", "nix-shell")
        )
    options = [word for word in arguments if word.startswith("-")]
    if any(re.fullmatch(r"-[a-zA-Z]*c[a-zA-Z]*|--command(=.*)?", word) for word in options):
        return False
    if name != "su":
        return len(options) == len(arguments)
    before = ["", *arguments]
    named = [w for w, last in zip(arguments, before, strict=False) if last not in _WITH_VALUE]
    accounts = [word for word in named if not word.startswith("-")]
    return accounts[:1] in ([], ["root"])
