"""Homes of home-manager that stand by themselves, the ``homeConfigurations`` of a flake: which host
a name means, and how a home is named.
"""

from __future__ import annotations

from pytest_nixos.errors import SettingsError
from pytest_nixos.nix.command.refs import FlakeRef, HomesRef, HostRef, HostSelection
from pytest_nixos.nix.failure.absent import no_hosts_or_homes
from pytest_nixos.nix.failure.evaluation import NoHosts
from pytest_nixos.nix.flakes import Flakes

__all__ = ["all_hosts", "home_names", "host_named"]


def home_names(flakes: Flakes, flake: FlakeRef) -> tuple[str, ...]:
    """Return the names of a flake's homes; none where what holds the hosts is no flake.

    :raises EvalError: if the flake does not evaluate.
    """
    if type(flake) is not FlakeRef:
        return ()
    try:
        return flakes.of(HomesRef(flake.url)).host_names()
    except NoHosts:
        return ()


def all_hosts(flakes: Flakes, flake: FlakeRef) -> tuple[HostRef, ...]:
    """Return what a ref without a name stands for: all hosts; where the flake has none, all homes.

    :raises FlakeError: if the flake is not there or has neither.
    :raises EvalError: if it does not evaluate.
    """
    try:
        found = tuple(HostRef(flake, name) for name in flakes.of(flake).host_names())
    except NoHosts as err:
        homes = home_names(flakes, flake)
        if not homes:
            raise no_hosts_or_homes(flake) from err
        return tuple(HostRef(HomesRef(flake.url), name) for name in homes)
    return found


def host_named(flakes: Flakes, selection: HostSelection) -> HostRef:
    """Return the host that a selection names.

    A name with an ``@``, as home-manager's users write it (``alice@laptop``), may be one of either
    output. Any other one is a host of ``nixosConfigurations``, unless it is written in full.

    :raises SettingsError: if both outputs have the name.
    :raises FlakeError: if the flake is not there or has neither output.
    :raises EvalError: if it does not evaluate.
    """
    host = selection.host
    assert host is not None
    if not selection.is_bare or "@" not in host.attr or type(host.flake) is not FlakeRef:
        return host
    home = HostRef(HomesRef(host.flake.url), host.attr)
    is_home = host.attr in home_names(flakes, host.flake)
    try:
        is_host = host.attr in flakes.of(host.flake).host_names()
    except NoHosts:
        is_host = False
    if is_home and is_host:
        raise SettingsError(
            f"{host}: the flake has a host and a home of this name",
            remedy=f"write which of them: {host.flake}#nixosConfigurations.{host.attr} or {home}",
        )
    return home if is_home else host
