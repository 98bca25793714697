"""A flake as the commands see it: its machines are as the plugin's options default."""

from __future__ import annotations

from pytest_nixos.local.process import SubprocessRunner
from pytest_nixos.machine.channel.protocol import guest_script
from pytest_nixos.nix.building.store import Nix
from pytest_nixos.nix.command.argv import NixSettings
from pytest_nixos.nix.command.refs import FlakeRef
from pytest_nixos.nix.expression import Instrumentation
from pytest_nixos.nix.flake import Flake
from pytest_nixos.nix.flakes import Flakes

__all__ = ["default_flake", "default_flakes"]


def default_flake(ref: FlakeRef, settings: NixSettings, *, snapshot: bool = False) -> Flake:
    """Return the flake of `ref`, or the hosts of a file; see :func:`default_flakes`."""
    return default_flakes(settings, snapshot=snapshot).of(ref)


def default_flakes(settings: NixSettings, *, snapshot: bool = False) -> Flakes:
    """Return the flakes of a command.

    :param snapshot: whether the state of their VMs can be saved, as with ``--nixos-snapshot auto``.
    """
    instrumentation = Instrumentation(channel_script=guest_script(), snapshot=snapshot)
    return Flakes(Nix(runner=SubprocessRunner(), settings=settings), instrumentation)
