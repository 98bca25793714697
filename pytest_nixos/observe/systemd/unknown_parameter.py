"""Parameters of the kernel and of its modules that are none, and lines of modprobe.d that modprobe
does not know: each is passed over, and only the kernel's log tells of some.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

__all__ = ["COMMAND_LINE", "OF_PARAMETERS", "unknown_commands", "unknown_parameters"]

COMMAND_LINE = "/proc/cmdline"
_MODPROBE = "/etc/modprobe.d/"
#: Extended regular expressions of what the kernel says of them.
OF_PARAMETERS = ("^Unknown kernel command line parameters", ": unknown parameter '[^']+' ignored")
# print_unknown_bootoptions() of init/main.c, since 5.15; unknown_module_param_cb() of kernel/module/main.c.
_OF_KERNEL = re.compile(
    r'Unknown kernel command line parameters "(?P<words>.*)", will be passed to user space\.'
)
_OF_MODULE = re.compile(r"(?P<module>[\w-]+): unknown parameter '(?P<name>[^']+)' ignored")
_LINE = re.compile(r"(?P<file>/[^:]+):(?P<line>\d+):(?P<text>.*)")
# What others than the kernel read there: systemd's kernel-command-line(7), plymouth, NixOS' stage 1 and its images.
_OF_OTHERS = """
    splash nosplash single s S emergency rescue fastboot forcefsck text 1 2 3 4 5 debug quiet ro
    rw luks fstab roothash usrhash verity modules_load ip nameserver root rootflags rootfstype
    resume resumeflags init BOOT_IMAGE initrd regInfo copytoram findiso toram live zfs_force
    debug1 debug1devices debug1mounts selinux apparmor fips audit ifname vlan bond bridge vga rhgb
"""
# modprobe.d(5) of kmod 29 to 34; a line that begins otherwise is left out unheard.
_COMMANDS = "alias blacklist config include install options remove softdep weakdep"


def unknown_parameters(said: Iterable[str], lines: Iterable[str]) -> Iterator[tuple[str, int, str]]:
    """Give each parameter that the kernel or a module refused.

    :param said: lines of the kernel's log.
    :param lines: lines of files, those of modprobe.d among them, as ``grep -Hn`` prints them.
    :return: file, line from 1, and words that begin with the parameter.
    """
    written = [m for m in map(_LINE.fullmatch, lines) if m is not None]
    for text in said:
        if match := _OF_KERNEL.search(text):
            for word in match["words"].split():
                if word.partition("=")[0] not in _OF_OTHERS.split():
                    yield COMMAND_LINE, 1, f"{word} is no parameter that the kernel knows"
        if match := _OF_MODULE.search(text):
            module, name = match["module"], match["name"]
            place = next((p for p in map(_place_of(module, name), written) if p), None)
            if place is None:
                yield COMMAND_LINE, 1, f"{module}.{name} is no parameter of the module {module}"
            else:
                yield *place, f"{name} is no parameter of the module {module}, and ignored"


def _place_of(module: str, name: str) -> Callable[[re.Match[str]], tuple[str, int] | None]:
    """Return what tells where a line of modprobe.d gives a module this parameter."""

    def place(line: re.Match[str]) -> tuple[str, int] | None:
        command, *words = line["text"].split() or [""]
        named = {word.partition("=")[0] for word in words[1:]}
        is_it = command == "options" and _plain(words[0]) == _plain(module) and name in named
        return (line["file"], int(line["line"])) if is_it else None

    return place


def unknown_commands(lines: Iterable[str]) -> Iterator[tuple[str, int, str]]:
    """Give each line of modprobe.d(5) that begins with no command of it.

    :param lines: as ``grep -Hn`` prints them.
    """
    goes_on = False
    for line in filter(None, map(_LINE.fullmatch, lines)):
        words = line["text"].split()
        if not line["file"].startswith(_MODPROBE):
            continue
        if (
            words
            and not goes_on
            and words[0] not in _COMMANDS.split()
            and not words[0].startswith("#")
        ):
            yield (
                line["file"],
                int(line["line"]),
                f"{words[0]} is no command of modprobe.d, and left out",
            )
        goes_on = line["text"].endswith("\\")


def _plain(name: str) -> str:
    return name.replace("-", "_")
