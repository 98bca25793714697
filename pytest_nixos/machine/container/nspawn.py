"""``systemd-nspawn`` for one container: its files, its private surroundings and its argv.

What a NixOS container needs was read from nixpkgs ``nixos/modules/virtualisation/nixos-containers.nix`` (the
start script of ``container@.service``, 24.05) and ``nspawn-container/`` (26.05). Differences, each on purpose:

- All mounts and both network namespaces are private to one process tree, so that they vanish with it.
- ``/nix/store`` is an overlay over the host machine's store. A container of root's can remount a read-only
  bind mount, so its garbage collector could delete the host machine's store.
- ``/nix/var`` is the container's own, because switching and rolling back write to it; nixos-container shares
  the host machine's daemon instead, which not every machine has.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pytest_nixos.errors import MachineError
from pytest_nixos.machine.container.cgroup import CGROUP_PREFIX
from pytest_nixos.machine.network.scan import GUEST_INTERFACE, LinkAddresses

__all__ = [
    "OUTSIDE_INTERFACE",
    "ContainerPlan",
    "environment",
    "machine_name",
    "nspawn_argv",
    "prepare_root",
    "private_directory",
    "profile_init",
    "scope_argv",
    "stage_argv",
]

OUTSIDE_INTERFACE = "outside0"

_DIRECTORIES = {
    "etc": 0o755,
    "nix/store": 0o755,
    "nix/var/nix/daemon-socket": 0o755,
    "nix/var/nix/db": 0o755,
    "nix/var/nix/gcroots": 0o755,
    "nix/var/nix/profiles": 0o755,
    "root": 0o700,
    "usr": 0o755,
    "var/lib/private": 0o700,
}
# nixos-container makes the first two; a host with networking.useHostResolvConf reads the third.
_FILES = ("etc/os-release", "etc/machine-id", "etc/resolv.conf")

# Runs as root in new mount and network namespaces, the "outside", and becomes systemd-nspawn.
# Arguments: cgroup to make, this run's private directory, addresses of both ends, program and its arguments.
_STAGE = r"""
set -eu
cgroup=$1 private=$2 outside=$3 guest=$4
shift 4

if [ -n "$cgroup" ]; then
  fs=$(stat -f -c %T /sys/fs/cgroup)
  [ "$fs" = cgroup2fs ] || mount -t cgroup2 cgroup2 /sys/fs/cgroup
  # A killed session leaves empty cgroups; their names tell whose they were.
  for stale in /sys/fs/cgroup/PREFIX*; do
    owner=${stale#/sys/fs/cgroup/PREFIX}
    [ ! -d "$stale" ] || [ -d "/proc/${owner%%-*}" ] ||
      find "$stale" -depth -type d -exec rmdir {} + 2>/dev/null || true
  done
  mkdir "/sys/fs/cgroup/$cgroup"
  echo $$ >"/sys/fs/cgroup/$cgroup/cgroup.procs"
fi

mount -t tmpfs -o mode=0755 pytest-nixos "$private"
mkdir "$private/store"
mkdir -p /run/systemd/nspawn
mount -t tmpfs -o mode=0755 pytest-nixos /run/systemd/nspawn

inside() { nsenter --net="$private/network" -- "$@"; }
: >"$private/network"
unshare --net="$private/network" true
ip link set lo up
inside ip link set lo up
inside ip link add GUEST type veth peer name OUTSIDE netns $$
ip addr add "$outside" dev OUTSIDE
ip link set OUTSIDE up
[ -z "$guest" ] || inside ip addr add "$guest" dev GUEST
inside ip link set GUEST up

exec "$@"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerPlan:
    """Everything that shapes one container.

    :param run_dir: directory of this container alone.
    :param root: its root directory.
    :param init: program that becomes its process 1, a path inside it.
    :param cgroup: name of a new cgroup directly below the root of the unified hierarchy; ``""`` to stay in
        the cgroup in which systemd-nspawn is started (a scope with ``Delegate=yes``).
    """

    name: str
    run_dir: Path
    root: Path
    init: str
    cgroup: str
    addresses: LinkAddresses


def machine_name(name: str) -> str:
    """Turn a host's name into one that systemd-nspawn accepts (hostname_is_valid of systemd)."""
    return re.sub(r"[^A-Za-z0-9-]+", "-", name).strip("-")[:63].rstrip("-") or "nixos"


def private_directory(run_dir: Path) -> Path:
    """Return the mount point of what only the container's own processes see."""
    return run_dir / "private"


def prepare_root(root: Path, toplevel: Path) -> None:
    """Make the root directory of a new container, with `toplevel` as its first generation.

    :raises MachineError: if it cannot be written.
    """
    try:
        root.mkdir(mode=0o755, parents=True)
        root.chmod(0o755)
        for name, mode in _DIRECTORIES.items():
            _make_directories(root, name, mode)
        for name in _FILES:
            (root / name).touch(mode=0o644)
        profiles = root / "nix/var/nix/profiles"
        (profiles / "system-1-link").symlink_to(toplevel)
        (profiles / "system").symlink_to("system-1-link")
        (root / "nix/var/nix/gcroots/profiles").symlink_to("/nix/var/nix/profiles")
    except OSError as err:
        raise MachineError(
            f"{root}: the container's root directory cannot be made: {err.strerror}",
            remedy="free some space there, or set TMPDIR to a directory with room",
        ) from err


def profile_init(generation: int | None) -> str:
    """Return the init of the system profile's generation, or of the one of that number; a path inside a container."""
    link = "system" if generation is None else f"system-{generation}-link"
    return f"/nix/var/nix/profiles/{link}/init"


def nspawn_argv(plan: ContainerPlan, nspawn: str) -> list[str]:
    """Build the argv of systemd-nspawn itself."""
    private = private_directory(plan.run_dir)
    store = "/nix/store"
    return [
        nspawn,
        f"--directory={plan.root}",
        f"--machine={plan.name}",
        # No machined, no unit of its own: it may be absent, and two sessions must not share names.
        "--register=no",
        "--keep-unit",
        # Files in /etc/systemd/nspawn on the host machine must not change the container.
        "--settings=no",
        "--notify-ready=yes",
        "--kill-signal=SIGRTMIN+3",
        # The journal belongs to the root directory, which goes with the run.
        "--link-journal=no",
        "--resolv-conf=off",
        "--timezone=off",
        "--console=interactive",
        "--private-network",
        f"--network-namespace-path={private / 'network'}",
        f"--overlay={store}:{_escape(private / 'store')}:{store}",
        plan.init,
    ]


def stage_argv(plan: ContainerPlan, program: list[str], *, unshare: str) -> list[str]:
    """Build the argv that makes the private surroundings and then runs `program` in them.

    It runs in a process namespace of its own, because a container outlives a systemd-nspawn that was killed:
    here the kernel ends it when ``unshare`` ends, whatever ended that.
    """
    script = (
        _STAGE.replace("PREFIX", CGROUP_PREFIX)
        .replace("GUEST", GUEST_INTERFACE)
        .replace("OUTSIDE", OUTSIDE_INTERFACE)
    )
    addresses = plan.addresses
    return [
        unshare,
        "--mount",
        "--net",
        "--propagation=private",
        "--",
        "/bin/sh",
        "-c",
        script,
        "pytest-nixos-stage",
        plan.cgroup,
        str(private_directory(plan.run_dir)),
        str(addresses.outside),
        str(addresses.guest or ""),
        unshare,
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "--",
        *program,
    ]


def scope_argv(systemd_run: str, unit: str, program: list[str]) -> list[str]:
    """Build the argv that runs `program` in a delegated scope of the host machine's systemd."""
    return [
        systemd_run,
        "--scope",
        "--quiet",
        "--collect",
        "--slice=machine.slice",
        "--property=Delegate=yes",
        f"--unit={unit}.scope",
        "--",
        *program,
    ]


def environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """Build the environment of systemd-nspawn; process 1 of the container gets only ``TERM`` of it."""
    return {
        "PATH": inherited.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
        # Keeps systemd from asking the terminal for its size and colours, which nobody answers.
        "TERM": "dumb",
        "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
    }


def _make_directories(root: Path, name: str, mode: int) -> None:
    path = root
    for part in Path(name).parts:
        path /= part
        path.mkdir(mode=0o755, exist_ok=True)
    path.chmod(mode)


def _escape(path: Path) -> str:
    """Protect the separators of ``--overlay``, systemd-nspawn(1)."""
    return str(path).replace("\\", "\\\\").replace(":", "\\:")
