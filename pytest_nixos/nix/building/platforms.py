"""What hosts of another system than this machine's take: to build them, and to run them."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from pytest_nixos.errors import BuildError, MachineError, NixosError, SettingsError
from pytest_nixos.nix.building.store import Nix
from pytest_nixos.nix.command.argv import config_argvs
from pytest_nixos.nix.command.log import NixLog

__all__ = ["Foreign", "foreign_system", "refuse_where_no_guest_runs"]

Json = Any

_QUICK_S = 60.0
# The kernel's list of interpreters for programs of other systems.
_BINFMT = Path("/proc/sys/fs/binfmt_misc")
# What a processor runs by itself, beside its own.
_NATIVE = {("x86_64-linux", "i686-linux"), ("aarch64-linux", "armv7l-linux")}


class Foreign(msgspec.Struct, frozen=True, kw_only=True):
    """A host that is for another system.

    :param told: what that means here, one line.
    :param not_built: why it cannot be built, ``None`` where it can.
    :param not_run: why its machine cannot be started, ``None`` where it can.
    """

    told: str
    not_built: NixosError | None = None
    not_run: NixosError | None = None


def foreign_system(nix: Nix, system: str, *, binfmt: Path = _BINFMT) -> Foreign | None:
    """Say what a host of `system` takes on this machine; ``None`` where it is this machine's own,
    or Nix does not tell its settings.

    :param system: of what starts the machine, as Nix names it, for example ``aarch64-linux``.
    """
    settings = _configuration(nix)
    own = str(settings.get("system", ""))
    if not settings or system in ("", own) or (own, system) in _NATIVE:
        return None
    if system in _words(settings.get("extra-platforms")):
        return Foreign(
            told=f"this machine is {own}: built and run here by emulation, many times slower"
        )
    builders = [line.split() for line in _builders(settings)]
    if not any(len(words) > 1 and system in words[1].split(",") for words in builders):
        why = f"this machine is {own}, and nix.conf names no builder for {system}"
        error = BuildError(
            f"the host is for {system}: {why}: it cannot be built",
            remedy=f"name a builder in nix.conf (builders = ssh://HOST {system}), or emulate one:"
            f" {_emulation(system)}; its VM is many times slower then",
        )
        return Foreign(told=f"{why}: it cannot be built", not_built=error, not_run=error)
    if (binfmt / f"qemu-{system.partition('-')[0]}").exists():
        return Foreign(
            told=f"this machine is {own}: built on a remote builder of nix.conf,"
            " run here by emulation, many times slower"
        )
    why = f"this machine is {own}, and runs no programs of {system}"
    return Foreign(
        told=f"{why}: built on a remote builder of nix.conf, and not started",
        not_run=MachineError(
            f"the host is for {system}: {why}: its machine cannot be started here",
            remedy="let the builder run it: lib.checkHost of pytest-nixos' flake makes its test a derivation;"
            f" or emulate one here: {_emulation(system)}",
        ),
    )


def refuse_where_no_guest_runs() -> None:
    """Refuse to test on a machine that is no Linux.

    :raises SettingsError: there.
    """
    kernel = platform.system()
    if kernel == "Linux":
        return
    machine = {"arm64": "aarch64"}.get(platform.machine(), platform.machine())
    raise SettingsError(
        f"this machine is {machine}-{kernel.lower()}: a NixOS guest, and what keeps it apart, needs Linux",
        remedy="let a Linux builder of Nix test the host: checks = pytest-nixos.lib.checkFlake self {};"
        f" and nix build .#checks.{machine}-linux.HOST (builder: nix.linux-builder.enable = true of nix-darwin,"
        f" or builders = ssh://HOST {machine}-linux); or test a host that runs: --nixos-backend ssh",
    )


def _emulation(system: str) -> str:
    return (
        "boot.binfmt.emulatedSystems on NixOS, else qemu-user-static and"
        f" extra-platforms = {system} in nix.conf"
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
