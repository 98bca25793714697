"""``systemd-nspawn`` for one container: its private surroundings and its argv.

What a NixOS container needs was read from nixpkgs
``nixos/modules/virtualisation/nixos-containers.nix`` (the start script of ``container@.service``,
24.05) and ``nspawn-container/`` (26.05). Differences, each on purpose:

- The container has user ids of its own: its root is nobody on this machine.
- All mounts and the network that surrounds it are private to one process tree, so that they vanish
  with it.
- ``/nix/store`` is an overlay over the host machine's store. A container of root's can remount a
  read-only bind mount, so its garbage collector could delete the host machine's store.
- ``/nix/var`` is the container's own, because switching and rolling back write to it;
  nixos-container shares the host machine's daemon instead, which not every machine has.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_nixos.machine.channel.transport import PORTS
from pytest_nixos.machine.container.cgroup import CGROUP_PREFIX
from pytest_nixos.machine.container.channel import (
    GUEST_DIRECTORY,
    SECRETS,
    SPOOL_DIRECTORY,
    UNIT_DIRECTORY,
    UNITS,
)
from pytest_nixos.machine.container.disk import IMAGE, PLAIN, ROOT, STORE
from pytest_nixos.machine.container.limits import Limits
from pytest_nixos.machine.container.users import UserRange
from pytest_nixos.machine.network.scan import GUEST_INTERFACE, LinkAddresses

__all__ = [
    "CHANNEL",
    "GATE",
    "OUTSIDE_INTERFACE",
    "ContainerPlan",
    "environment",
    "guest_link_batch",
    "machine_name",
    "nspawn_argv",
    "outside_interface",
    "private_directory",
    "profile_init",
    "scope_argv",
    "stage_argv",
]

OUTSIDE_INTERFACE = "outside0"
#: Name of the channel's directory, in the run directory and in the private one.
CHANNEL = "channel"
#: Name of the named pipe in the run directory at which the surroundings wait: a line for each start.
GATE = "prepared"
_PING_GROUPS = "net.ipv4.ping_group_range"

_HELPER = Path(__file__).with_name("idmapped_mount.py")

# Runs as root in new mount and network namespaces, the "outside", and becomes systemd-nspawn.
# A killed session leaves empty cgroups; their names tell whose they were. One whose owner is not seen here may be that of a
# session in another process namespace: its guest's groups are empty for a moment as they are made.
_SWEEP = r"""
populated() {
  while read -r key value; do [ "$key $value" != "populated 1" ] || return 0; done <"$1/cgroup.events"
  return 1
}
sweep() {
  for stale in "$1"/PREFIX*; do
    owner=${stale#"$1"/PREFIX}
    [ ! -d "$stale" ] || [ -d "/proc/${owner%%-*}" ] || populated "$stale" ||
      find "$stale" -depth -type d -exec rmdir {} + 2>/dev/null || true
  done
}
""".replace("PREFIX", CGROUP_PREFIX)
_STAGE = r"""
set -eu
SWEEP
umask 022
cgroup=$1 memory=$2 tasks=$3 run=$4 outside=$5 python=$6 base=$7 size=$8 hardware=$9
shift 9
private=$run/private

# Groups with limits, in hierarchies of cgroup v1.
while [ "$1" != -- ]; do
  echo $$ >"$1/cgroup.procs"
  shift
done
shift

# Read-only, it tells systemd-nspawn that no udev has to know the network interface first.
mount -t sysfs -o ro,nosuid,nodev,noexec sysfs /sys
mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 /sys/fs/cgroup
if [ -n "$cgroup" ]; then
  sweep /sys/fs/cgroup
  for controller in memory pids; do
    echo "+$controller" 2>/dev/null >/sys/fs/cgroup/cgroup.subtree_control || true
  done
  own=/sys/fs/cgroup/$cgroup
  mkdir "$own"
  [ ! -e "$own/memory.max" ] || echo "$memory" >"$own/memory.max"
  [ ! -e "$own/memory.swap.max" ] || echo 0 >"$own/memory.swap.max"
  [ ! -e "$own/pids.max" ] || echo "$tasks" >"$own/pids.max"
  echo $$ >"$own/cgroup.procs"
fi

mount -t tmpfs -o mode=0755,nosuid,nodev pytest-nixos "$private"
mkdir "$private/lower" "$private/disk"
mkdir -p /run/systemd/nspawn
mount -t tmpfs -o mode=0755 pytest-nixos /run/systemd/nspawn

mapping=
if [ -n "$base" ]; then
  "$python" -I -S "HELPER" /nix/store "$private/lower" "$base" "$size" &
  mapping=$!
else
  mount --bind /nix/store "$private/lower"
fi

# Before the guest can set it up: its own IPv6 address is made of the hardware's.
ip -batch - <<END
link set lo up
link add GUEST ${hardware:+address $hardware} type veth peer name OUTSIDE
addr add $outside dev OUTSIDE
link set OUTSIDE up
$(for name in MORE; do
  echo "link add $name type veth peer name outside${name#eth}"
  echo "link set outside${name#eth} up"
done)
END

# Disk and channel are made meanwhile.
read -r _ <"$run/GATE"

if [ -f "$run/IMAGE" ]; then
  mount -o loop,nobarrier "$run/IMAGE" "$private/disk"
else
  mount --bind "$run/PLAIN" "$private/disk"
  # An overlay cannot lie on an overlay, which is what the root of many containers is.
  if [ "$(stat -f -c %T "$run")" = overlayfs ]; then
    mount -t tmpfs -o mode=0755 pytest-nixos "$private/disk/STORE"
    chown "${base:-0}:${base:-0}" "$private/disk/STORE"
  fi
fi
cp -R "$run/CHANNEL" "$private/CHANNEL"
(
  cd "$private/CHANNEL"
  mkfifo -m 600 PIPES
  chown "${base:-0}:${base:-0}" PIPES
)
if [ -e "$private/CHANNEL/SECRETS" ]; then
  chown "${base:-0}:${base:-0}" "$private/CHANNEL/SECRETS"
  chmod 400 "$private/CHANNEL/SECRETS"
fi

[ -z "$mapping" ] || wait "$mapping"
exec "$@"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerPlan:
    """Everything that shapes one container.

    :param run_dir: directory of this container alone.
    :param init: program that becomes its process 1, a path inside it.
    :param cgroup: name of a new cgroup directly below the root of the unified hierarchy; ``""`` to
        stay in the cgroup in which systemd-nspawn is started (a scope with ``Delegate=yes``).
    :param users: its user ids; ``None`` for those of this machine, so that its root is root here.
    :param stand_in: whether the other end of its link stands in for the internet.
    :param processors: numbers of those that it may use, none for all.
    :param ping_groups: value of ``net.ipv4.ping_group_range`` in place of the declared one, ``""``
        for that.
    """

    name: str
    run_dir: Path
    init: str
    cgroup: str
    addresses: LinkAddresses
    limits: Limits
    users: UserRange | None
    stand_in: bool = False
    processors: tuple[int, ...] = ()
    ping_groups: str = ""


def machine_name(name: str) -> str:
    """Turn a host's name into one that systemd-nspawn accepts (hostname_is_valid of systemd)."""
    return re.sub(r"[^A-Za-z0-9-]+", "-", name).strip("-")[:63].rstrip("-") or "nixos"


def private_directory(run_dir: Path) -> Path:
    """Return the mount point of what only the container's own processes see."""
    return run_dir / "private"


def profile_init(generation: int | None) -> str:
    """Return the init of the system profile's generation, or of the one of that number; a path
    inside a container.
    """
    link = "system" if generation is None else f"system-{generation}-link"
    return f"/nix/var/nix/profiles/{link}/init"


def nspawn_argv(plan: ContainerPlan, nspawn: str) -> list[str]:
    """Build the argv of systemd-nspawn itself."""
    private = private_directory(plan.run_dir)
    channel, store = private / CHANNEL, "/nix/store"
    users, groups = plan.users, plan.ping_groups
    return [
        nspawn,
        f"--directory={private / 'disk' / ROOT}",
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
        f"--private-users={f'{users.base}:{users.size}' if users else 'no'}",
        # systemd-sysctl.service reads it behind the files of sysctl.d.
        *([f"--set-credential=sysctl.extra:{_PING_GROUPS}={groups}"] if groups else ()),
        "--private-network",
        *([f"--cpu-affinity={','.join(map(str, plan.processors))}"] if plan.processors else ()),
        *(f"--network-interface={name}" for name in (GUEST_INTERFACE, *plan.addresses.more)),
        f"--overlay={_escape(private / 'lower')}:{_escape(private / 'disk' / STORE)}:{store}",
        f"--bind-ro={_escape(channel)}:{GUEST_DIRECTORY}",
        # Output of commands lies there until it is sent: without a bound of its own it would fill
        # the container's memory.
        f"--tmpfs={SPOOL_DIRECTORY}:mode=0700,nosuid,nodev,size={plan.limits.memory_bytes // 4}",
        # A directory that systemd-nspawn makes on the way to a mount point belongs to this
        # machine's root.
        f"--tmpfs={Path(UNIT_DIRECTORY).parent}:mode=0755,nosuid,nodev,size=20%",
        f"--bind-ro={_escape(channel / UNITS)}:{UNIT_DIRECTORY}",
        plan.init,
    ]


def stage_argv(
    plan: ContainerPlan, program: list[str], *, unshare: str, join: Sequence[Path] = ()
) -> list[str]:
    """Build the argv that makes the private surroundings and then runs `program` in them.

    It runs in a process namespace of its own, because a container outlives a systemd-nspawn that
    was killed: here the kernel ends it when ``unshare`` ends, whatever ended that.

    :param join: directories of further control groups.
    """
    words = {
        "SWEEP": _SWEEP,
        "GUEST": GUEST_INTERFACE,
        "OUTSIDE": OUTSIDE_INTERFACE,
        "IMAGE": IMAGE,
        "PLAIN": PLAIN,
        "STORE": STORE,
        "CHANNEL": CHANNEL,
        "GATE": GATE,
        "SECRETS": SECRETS,
        "HELPER": str(_HELPER),
        "PIPES": " ".join(f"{port}.in {port}.out" for port in PORTS),
        "MORE": " ".join(plan.addresses.more),
    }
    script = re.sub("|".join(words), lambda found: words[found[0]], _STAGE)
    users, limits = plan.users, plan.limits
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
        str(limits.memory_bytes),
        str(limits.tasks),
        str(plan.run_dir),
        str(plan.addresses.outside),
        sys.executable,
        str(users.base) if users else "",
        str(users.size) if users else "",
        plan.addresses.hardware,
        *(str(path) for path in join),
        "--",
        unshare,
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "--",
        *program,
    ]


def guest_link_batch(addresses: LinkAddresses, *, default_route: bool = False) -> str:
    """Return what ``ip -batch`` does in the container's network, to give its end of the link what it
    has before its boot; it can be done again where a part of it was refused.

    :param default_route: by the other end, where the host declares no address of its own.
    """
    guest = addresses.guest
    address = () if guest is None else (f"addr replace {guest} dev {GUEST_INTERFACE}",)
    router = addresses.outside.ip
    route = (f"route replace default via {router}",) if default_route and guest else ()
    cards = (GUEST_INTERFACE, *addresses.more)
    lines = (*address, *(f"link set {name} up" for name in cards), *route)
    return "".join(f"{line}\n" for line in lines)


def outside_interface(guest: str) -> str:
    """Return the outer end of the link of one of the guest's interfaces."""
    return f"outside{guest.removeprefix('eth')}"


def scope_argv(systemd_run: str, unit: str, limits: Limits, program: list[str]) -> list[str]:
    """Build the argv that runs `program` in a delegated scope of the host machine's systemd."""
    return [
        systemd_run,
        "--scope",
        "--quiet",
        "--collect",
        "--slice=machine.slice",
        "--property=Delegate=yes",
        f"--property=MemoryMax={limits.memory_bytes}",
        "--property=MemorySwapMax=0",
        f"--property=TasksMax={limits.tasks}",
        f"--unit={unit}.scope",
        "--",
        *program,
    ]


def environment(inherited: Mapping[str, str], *, notice: Path) -> dict[str, str]:
    """Build the environment of systemd-nspawn; process 1 of the container gets only ``TERM`` of
    it.

    :param notice: socket that is told what becomes of the container (sd_notify(3)).
    """
    return {
        "PATH": inherited.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
        # Keeps systemd from asking the terminal for its size and colours, which nobody answers.
        "TERM": "dumb",
        "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
        "NOTIFY_SOCKET": str(notice),
    }


def _escape(path: Path) -> str:
    """Protect the separators of ``--overlay`` and ``--bind-ro``, systemd-nspawn(1)."""
    return str(path).replace("\\", "\\\\").replace(":", "\\:")
