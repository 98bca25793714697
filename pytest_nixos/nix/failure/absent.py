"""What a flake or a file does not have: hosts, a host of a name, an input, a test."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from pytest_nixos.errors import FlakeError
from pytest_nixos.nix.command.refs import FileRef, FlakeRef, HomesRef, HostRef, NixosTestRef

__all__ = [
    "no_hosts",
    "no_hosts_or_homes",
    "no_such_host",
    "no_such_input",
    "no_such_test",
    "output_of",
]

_SHOWN_NAMES = 20


def no_such_test(test: NixosTestRef) -> FlakeError:
    """Say that the flake has no such output."""
    return FlakeError(
        f"{test}: has no output {test.attribute}",
        remedy=f"name a NixOS test as nix build does: {test}#checks.x86_64-linux.NAME",
    )


def no_hosts_or_homes(flake: FlakeRef) -> FlakeError:
    """Say that the flake has neither of the outputs that hold hosts."""
    return FlakeError(
        f"{flake}: this flake has neither nixosConfigurations nor homeConfigurations",
        remedy="name a flake that defines hosts as nixosConfigurations.NAME = nixpkgs.lib.nixosSystem { ... },"
        " or homes as homeConfigurations.NAME = home-manager.lib.homeManagerConfiguration { ... }",
    )


def no_hosts(flake: FlakeRef) -> FlakeError:
    """Say that there is nothing to judge."""
    if isinstance(flake, NixosTestRef):
        return FlakeError(
            f"{flake}#{flake.attribute}: this test has no nodes",
            remedy="its containers are not judged; name a test with VMs",
        )
    if isinstance(flake, FileRef):
        return FlakeError(
            f"{flake}: nothing in this file is a host",
            remedy="name the host by its attribute path: -A machines.web;"
            " a host is what nixpkgs' eval-config.nix returns, unchanged",
        )
    return FlakeError(
        f"{flake}: {output_of(flake)} is empty",
        remedy="add a host to the flake, or name another flake",
    )


def no_such_host(host: HostRef, known: Sequence[str], homes: Sequence[str] = ()) -> FlakeError:
    """Say that the flake has no such host, and which it has.

    :param homes: what the flake has among its ``homeConfigurations``.
    """
    if isinstance(host.flake, FileRef):
        names = ", ".join(known[:_SHOWN_NAMES]) or "none"
        return FlakeError(
            f"{host}: no such host; hosts at the top of the file: {names}",
            remedy="name it by its attribute path, as nix-build does: -A machines.web",
        )
    if isinstance(host.flake, NixosTestRef):
        return FlakeError(
            f"{host}: no such node; the test has {', '.join(known[:_SHOWN_NAMES]) or 'none'}",
            remedy="name one of these, or leave .nodes.NAME out for all of them",
        )
    if host.attr in homes:
        return FlakeError(
            f"{host}: no such host; the flake has a home of this name",
            remedy=f"name it as a home: {HostRef(HomesRef(host.flake.url), host.attr)}",
        )
    if not known and homes:
        names = ", ".join(homes[:_SHOWN_NAMES])
        return FlakeError(
            f"{host}: no such host; the flake has none, and the homes {names}",
            remedy=f"name a home: {HostRef(HomesRef(host.flake.url), homes[0])}",
        )
    if not known:
        return FlakeError(
            f"{host}: the {output_of(host.flake)} of this flake are empty",
            remedy="add a host: nixosConfigurations.NAME = nixpkgs.lib.nixosSystem { ... }",
        )
    of_name = {home: HostRef(HomesRef(host.flake.url), home) for home in homes}
    of_name |= {name: HostRef(host.flake, name) for name in known}
    near = difflib.get_close_matches(host.attr, of_name, n=1)
    names = ", ".join(known[:_SHOWN_NAMES])
    more = f" and {len(known) - _SHOWN_NAMES} more" if len(known) > _SHOWN_NAMES else ""
    meant = (
        f"did you mean {of_name[near[0]]}?"
        if near
        else f"choose one of them: {HostRef(host.flake, known[0])}"
    )
    return FlakeError(f"{host}: no such host; the flake has {names}{more}", remedy=meant)


def no_such_input(flake: FlakeRef, name: str, known: Sequence[str]) -> FlakeError:
    """Say that an input to be overridden does not exist."""
    names = ", ".join(known[:_SHOWN_NAMES]) or "none"
    near = difflib.get_close_matches(name, known, n=1)
    return FlakeError(
        f"{flake}: no input {name!r} to override; the flake's inputs: {names}",
        remedy=f"did you mean {near[0]}?"
        if near
        else "use the name under `inputs` in flake.nix, with / between the names of nested inputs",
    )


def output_of(flake: FlakeRef) -> str:
    """Return the name of the flake's output that holds what was asked for."""
    if isinstance(flake, NixosTestRef):
        return flake.attribute
    return "homeConfigurations" if isinstance(flake, HomesRef) else "nixosConfigurations"
