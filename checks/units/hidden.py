"""Paths that a service names and that its own sandbox hides from it: to the program they are not there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from pytest_nixos import Unit, parse_boolean

from .remedies import unit_option

__all__ = ["HiddenPath", "hidden_paths"]

_COMMANDS = ("ExecStartPre", "ExecStart", "ExecStartPost", "ExecReload")
# What a program makes of its home is its own affair, and a list of places may name what is not there.
_NOT_NEEDED = re.compile(r"[\"']?(?:HOME|XDG_\w+|\w*PATH|\w*DIRS)=")
_PATH = re.compile(r"(?:(?<=[\s=\"',:])|^)/(?:home|root|run/user|dev)(?:/[\w@.+-]+)*(?![\w@.+-])")
# What it is told to pass over need not be there.
_PASSED_OVER = re.compile(r"(?:exclu|ignor|skip|without)[\w-]*[\s=\"']+$", re.IGNORECASE)
_HOMES = ("/home", "/root", "/run/user")
# Those that are there all the same, systemd.exec(5), PrivateDevices=.
_PSEUDO_DEVICES = re.compile(
    r"/dev(?:/(?:null|zero|full|u?random|tty|ptmx|pts|shm|mqueue|hugepages|log|fd|std(?:in|out|err)|console)(?:/.*)?)?"
)
# Shown again, or a view of a file system that is not the host's.
_SHOWN = ("BindPaths", "BindReadOnlyPaths")
_OTHER_ROOT = ("RootDirectory", "RootImage")


class HiddenPath(NamedTuple):
    """A path that is not in the view of the service that names it.

    :param key: the directive that names it.
    :param by: the directive that hides it, and its value.
    """

    unit: str
    key: str
    path: str
    by: tuple[str, str]

    def __str__(self) -> str:
        return (
            f"{self.unit}: {self.key}= names {self.path}, which {'='.join(self.by)} hides from it"
        )

    @property
    def remedy(self) -> str:
        """Module text that shows it."""
        config = f"{unit_option(self.unit)}.serviceConfig"
        if self.by[0] == "ProtectHome":
            return f'# "read-only" is enough where {self.unit} writes nothing there, else false:\n{config}.ProtectHome = lib.mkForce "read-only";'
        return f"{config}.{self.by[0]} = lib.mkForce false;"


def hidden_paths(unit: Unit) -> Iterator[HiddenPath]:
    """Yield the paths of homes and of devices that a service's commands and environment name and that its
    own unit hides.
    """
    hiding = tuple(_hiding(unit))
    if not hiding or any(unit.setting("Service", key) for key in _OTHER_ROOT):
        return
    shown = [
        word.lstrip("-").split(":")[1 if word.lstrip("-").count(":") else 0]
        for key in _SHOWN
        for word in unit.words("Service", key)
    ]
    told = set()
    for key, text in _texts(unit):
        for path in _named(text):
            by = next((by for above, by in hiding if _is_below(path, above)), None)
            if by is None or path in told or any(_is_below(path, one) for one in shown):
                continue
            if not _PSEUDO_DEVICES.fullmatch(path):
                told.add(path)
                yield HiddenPath(unit.name, key, path, by)


def _hiding(unit: Unit) -> Iterator[tuple[str, tuple[str, str]]]:
    home = unit.setting("Service", "ProtectHome")[-1:]
    if home and (home[0] == "tmpfs" or parse_boolean(home[0])):
        yield from ((above, ("ProtectHome", home[0])) for above in _HOMES)
    if unit.is_on("Service", "PrivateDevices"):
        yield "/dev", ("PrivateDevices", "true")


def _texts(unit: Unit) -> Iterator[tuple[str, str]]:
    for key in _COMMANDS:
        for text in unit.setting("Service", key):
            # With full rights it is started outside of the sandbox.
            if not text.lstrip("-:@|!").startswith("+"):
                yield key, text
    for text in unit.setting("Service", "Environment"):
        if not _NOT_NEEDED.match(text):
            yield "Environment", text


def _named(text: str) -> Iterator[str]:
    for found in _PATH.finditer(text):
        if not _PASSED_OVER.search(text[: found.start()]):
            yield found[0]


def _is_below(path: str, above: str) -> bool:
    return path == above or path.startswith(f"{above.rstrip('/')}/")
