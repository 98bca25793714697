"""Whether this machine can build for the system of a host, and what that takes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_nixos.nix.argv import config_argvs
from pytest_nixos.nix.log import NixLog
from pytest_nixos.nix.store import Nix

__all__ = ["what_a_build_takes"]

Json = Any

_QUICK_S = 60.0


def what_a_build_takes(nix: Nix, system: str) -> tuple[str, ...]:
    """Say in lines what building for `system` takes on this machine; none where it is this
    machine's own system.

    :param system: as Nix names it, for example ``aarch64-linux``.
    """
    settings = _configuration(nix)
    own = str(settings.get("system", ""))
    if not settings or not system or system == own:
        return ()
    if system in _words(settings.get("extra-platforms")):
        return (f"this machine is {own} and runs it too (extra-platforms of nix.conf): built here",)
    builders = [line.split() for line in _builders(settings)]
    if any(len(words) > 1 and system in words[1].split(",") for words in builders):
        return (f"this machine is {own}: built on a remote builder of nix.conf",)
    return (
        f"this machine is {own}, and nix.conf names no builder for {system}: the system cannot be built",
        f"name a builder in nix.conf (builders = ssh://HOST {system}), or emulate one:",
        f"boot.binfmt.emulatedSystems on NixOS, else qemu-user-static and extra-platforms = {system}",
        "its VM runs by emulation, many times slower",
    )


def _configuration(nix: Nix) -> Mapping[str, Json]:
    """Return settings of Nix by name; none where it does not tell."""
    for argv in config_argvs(nix.settings):
        answer = nix.run(argv, NixLog(), _QUICK_S)
        if answer.exit_status == 0:
            try:
                document = json.loads(answer.stdout)
            except ValueError:
                continue
            if isinstance(document, dict):
                return {
                    name: entry.get("value")
                    for name, entry in document.items()
                    if isinstance(entry, dict)
                }
    return {}


def _words(value: Json) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(value.split())
    return tuple(map(str, value)) if isinstance(value, list) else ()


def _builders(settings: Mapping[str, Json]) -> list[str]:
    """List the lines that name builders; ``@FILE`` stands for the lines of a file, as in
    nix.conf(5).
    """
    lines = []
    for part in str(settings.get("builders") or "").replace(";", "\n").splitlines():
        name = part.strip()
        if name.startswith("@"):
            try:
                lines += Path(name[1:]).read_text(encoding="utf-8").splitlines()
            except OSError:
                continue
        elif name:
            lines.append(name)
    return [line for line in lines if line.strip() and not line.strip().startswith("#")]
