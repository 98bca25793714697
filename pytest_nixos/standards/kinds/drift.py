"""The kind about drift: a live host held against the flake that it is meant to come from."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.observe.filesystems.drift import Drift, drift
from pytest_nixos.observe.oci_container import OciContainer, OciContainers, oci_containers
from pytest_nixos.standards.control.seen import Seen, Sight, Unseen
from pytest_nixos.standards.kinds.kind import Kind, Parameter, Parameters

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


# These start containers of their own as work comes in: nobody declares each.
_STARTERS = (
    *("nomad.", "gitlab-runner.", "gitea-runner-", "forgejo-runner-", "github-runner-"),
    *("woodpecker-agent-", "buildkite-agent-", "jenkins.", "hercules-ci-agent", "drone-runner"),
)


def _containers(found: OciContainers | None, _: Parameters, host: HostConfig) -> Sight:
    if found is None:
        return Unseen("podman or docker does not tell its containers")
    if not found.engines:
        return Unseen("the machine runs neither podman nor docker", applicable=False)
    starters = [unit for unit in host.units if unit.startswith(_STARTERS)]
    if starters:
        return Unseen(f"{starters[0]} starts containers of its own", applicable=False)
    made = [c for c in found.containers if not _is_declared(c, found.quadlets, host)]
    return Seen([f"{container.name} ({container.engine})" for container in made])


def _is_declared(container: OciContainer, quadlets: tuple[str, ...], host: HostConfig) -> bool:
    """Whether a unit of the host, a quadlet, or a compose file of the store starts it."""
    # nixos/modules/virtualisation/oci-containers.nix names unit and container alike.
    if f"{container.engine}-{container.name}.service" in host.units:
        return True
    if container.unit in host.units:
        return True
    stem = container.unit.removesuffix(".service")
    if stem and any(quadlet.rpartition(".")[0] == stem for quadlet in quadlets):
        return True
    files = container.compose_files
    return bool(files) and all(file.startswith("/nix/store/") for file in files)


KINDS = (
    Kind(
        name="oci-drift",
        reads="containers of podman and docker that nothing of the host's starts",
        probe=lambda _, __: oci_containers(),
        find=_containers,
    ),
    Kind(
        name="drift",
        reads="what a live host is and has beside what its flake says",
        probe=lambda _, __: drift(),
        find=_drift,
        parameters={"fact": Parameter(required=True, choices=tuple(_FACTS))},
    ),
)
