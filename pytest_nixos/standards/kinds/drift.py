"""The kind about drift: a live host held against the flake that it is meant to come from."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pytest_nixos.nix.host_facts import HostConfig
from pytest_nixos.observe.drift import Drift, drift
from pytest_nixos.standards.kinds.kind import Kind, Parameter, Parameters
from pytest_nixos.standards.seen import Seen, Sight, Unseen

__all__ = ["KINDS"]

# Accounts that every NixOS has, whatever users.users says of them.
_ALWAYS = frozenset({"root", "nobody"})


def _system(found: Drift, host: HostConfig) -> Sight:
    if not host.toplevel:
        return Unseen("the flake's system has no store path")
    if not found.current:
        return Unseen("the guest runs no system of NixOS")
    if host.toplevel in (found.current, found.specialisations.get(found.current)):
        return Seen([])
    numbers = {path: number for number, path in sorted(found.generations.items())}
    runs, declared = numbers.get(found.current), numbers.get(host.toplevel)
    which = f"generation {runs}" if runs is not None else "no generation of the profile"
    where = f"generation {declared} there" if declared is not None else "not in its profile"
    return Seen([f"{found.current} runs, {which}; the flake's is {host.toplevel}, {where}"])


def _accounts(found: Drift, host: HostConfig) -> Sight:
    if "users.users" in host.unreadable:
        return Unseen("the host's users.users cannot be evaluated")
    declared = {user.name for user in host.users.values() if user.enabled} | _ALWAYS
    return Seen([name for name in found.accounts if name not in declared])


_FACTS: Mapping[str, Callable[[Drift, HostConfig], Sight]] = {
    "system": _system,
    "files": lambda found, _: Seen([f"/etc/{path}" for path in found.files]),
    "containers": lambda found, _: Seen(list(found.containers)),
    "accounts": _accounts,
}


def _drift(found: Drift | None, parameters: Parameters, host: HostConfig) -> Sight:
    if found is None:
        return Unseen("what the guest has beside its flake could not be read")
    return _FACTS[str(parameters["fact"])](found, host)


KINDS = (
    Kind(
        name="drift",
        reads="what a live host is and has beside what its flake says",
        probe=lambda _, __: drift(),
        find=_drift,
        parameters={"fact": Parameter(required=True, choices=tuple(_FACTS))},
    ),
)
