"""Which declared units write a sysctl once it has been set."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from pytest_nixos import HostConfig, Unit

__all__ = ["writers_of"]

# systemd.service(5): the lines that start something.
_STARTS = ("ExecStartPre", "ExecStart", "ExecStartPost", "ExecReload", "ExecCondition")
_STORE_FILE = re.compile(r"/nix/store/[^\s;\"']+")
_MOST_BYTES = 65536


def writers_of(key: str, host: HostConfig) -> tuple[str, ...]:
    """Return the units that name a sysctl in a line or a script that they start.

    Scripts are read where this machine has them in its store, as it has what it built.

    :param key: with dots.
    """
    path = key.replace(".", "/")
    spelt = re.compile(
        rf"(?<![\w/.-])(?:/proc/sys/)?(?:{re.escape(key)}|{re.escape(path)})(?![\w.-])"
    )
    return tuple(
        name
        for name, unit in sorted(host.units.items())
        if unit.enabled and any(spelt.search(text) for text in _texts(unit))
    )


def _texts(unit: Unit) -> Iterator[str]:
    for start in _STARTS:
        for line in unit.setting("Service", start):
            yield line
            for name in _STORE_FILE.findall(line):
                yield _script(Path(name))


def _script(path: Path) -> str:
    with contextlib.suppress(OSError), path.open("rb") as file:
        head = file.read(_MOST_BYTES)
        return head.decode(errors="replace") if head.startswith(b"#!") else ""
    return ""
