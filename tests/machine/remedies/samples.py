"""The remedies as modules of the plain host: each placeholder filled with something that the
host has.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pytest_nixos.standards.control.model import Control, Remedy
from pytest_nixos.standards.load import load_catalogue

__all__ = ["FILLED", "Text", "as_module", "filled", "texts"]

#: Placeholder to what stands in the plain host under that name.
FILLED = {
    "unit": "app",
    "failed unit": "app.service",
    "snippet": "users",
    "timer": "fstrim",
    "socket": "sshd",
    "path": "/home",
    "port": "8123",
    "container": "web",
    "directory": "/srv/bin",
    "account": "alice",
    "password in the configuration": "alice.initialPassword",
    "group": "builders",
    "service": "login",
    "zone link": "localtime",
    "site": "www.example.org",
    "module": "br_netfilter",
    "device": "vda2",
    "input": "sops-nix",
    "secret": "token",
    "ordered unit": "app",
    "renamed option": "boot.cleanTmpDir",
    "setting": "MaxAuthTries",
    "value in vain": "3",
    "setting that is off": "X11Forwarding",
    "setting that is on": "StrictModes",
    "setting that differs": "MaxAuthTries",
    "action": "org.freedesktop.login1.reboot",
    "file": "example.conf",
    "host name": "plain",
    "state version": "24.05",
    "supported release": "26.05",
    "flake": "github:me/config",
}
#: Where the same word means another thing.
_OWN = {
    "CTR-011": {"container": "box"},
    "UPG-001": {"file": "nix/nix.conf"},
    "AUTH-025": {"account": "daemon1"},
    "AUTH-026": {"service": "su"},
}
_PLACEHOLDER = re.compile(r"<(?:every )?([a-z][a-z ]*)>")


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """One remedy of one control, filled.

    :param number: which of the control's remedies.
    """

    control: Control
    number: int
    remedy: Remedy
    text: str

    @property
    def name(self) -> str:
        return f"{self.control.id}-{self.number}"

    @property
    def is_module(self) -> bool:
        return self.remedy.goes_into is None


def texts() -> Iterator[Text]:
    """Yield every remedy of the bundled catalogue."""
    for control in load_catalogue():
        for number, remedy in enumerate(control.remedies):
            yield Text(
                control=control, number=number, remedy=remedy, text=filled(control, remedy.text)
            )


def filled(control: Control, text: str) -> str:
    """Return the text with the plain host's own names; a comment may name what nobody pastes."""
    values = {**FILLED, **_OWN.get(control.id, {})}
    lines = [
        line
        if line.lstrip().startswith("#")
        else _PLACEHOLDER.sub(lambda match: values[match[1]], line)
        for line in text.splitlines()
    ]
    return "\n".join(lines)


def as_module(text: str, path: Path) -> Path:
    """Write a text as the module that it is pasted into."""
    path.write_text(f"{{ config, lib, pkgs, ... }}:\n{{\n{text}\n}}\n")
    return path
