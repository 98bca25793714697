"""What a run needs of this machine, each need looked at for real: a build that builds, a
namespace that is made.
"""

from __future__ import annotations

import enum
import grp
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pytest_nixos.backend_name import BackendName
from pytest_nixos.errors import NixosError, SettingsError
from pytest_nixos.local.dirs import cache_directory
from pytest_nixos.local.memory import available_bytes
from pytest_nixos.local.process import Completed, Runner, SubprocessRunner
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.qemu.kvm import KvmProbe, VerdictCache, device_refusal
from pytest_nixos.nix.building.platforms import refuse_where_no_guest_runs

__all__ = ["Need", "State", "Surroundings", "needs"]

_LIMIT_S = 120.0
_MIB = 1 << 20
_GIB = 1 << 30
_FLAKES = ("--extra-experimental-features", "nix-command flakes")
_OLDEST_NIX = (2, 8)
_VERSION = re.compile(r"(\d+)\.(\d+)")
# One evaluation of a real host, see plugin/evaluate.py; a guest's memory, its disk and the image of
# its store.
_EVALUATION_BYTES = 2560 * _MIB
_SNAPSHOT_BYTES = 3 * _GIB
_RUN_BYTES = 2 * _GIB
# Builds one file, with nothing but a shell: what daemon, build users and sandbox allow shows
# itself.
_TRIAL_BUILD = (
    'derivation { name = "pytest-nixos-doctor-%s"; system = builtins.currentSystem; builder = "/bin/sh"; '
    'args = [ "-c" "echo > $out" ]; }'
)
_NO_FEATURE = re.compile(r"(?i)experimental|unrecognised flag|is not a recognised command")
# Debian's nix-setup-systemd opens the daemon's directory to a group (nix-users).
_REFUSED = re.compile(r"daemon-socket[^\n]*Permission denied")
_CONTAINER_TOOLS = {
    "systemd-nspawn": "install it: apt install systemd-container (Debian, Ubuntu), dnf install systemd-container (Fedora)",
    "nsenter": "install util-linux",
    "unshare": "install util-linux",
    "ip": "install iproute2 (Debian, Ubuntu), iproute (Fedora)",
    "nix-store": "install Nix on this machine; under sudo keep it on PATH",
}


class State(enum.Enum):
    """How a need is met."""

    OK = "ok"
    #: a run works, with less or more slowly
    LIMITED = "limited"
    #: a run fails
    LACKING = "lacking"


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """One need and how this machine meets it.

    :param told: what was found, one line.
    :param remedy: what to do about it, ``""`` where nothing is to be done.
    """

    name: str
    state: State
    told: str
    remedy: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """The machine that pytest runs on, or a test's picture of one.

    :param root: where the kernel's files are looked for.
    :param backend: how the host of the run will run, ``None`` if that is not known: then nothing
        that only one backend needs is counted as lacking.
    :param qemu: QEMU of the host's closure, ``None`` if it is not known or not built yet.
    :param qemu_img: likewise.
    """

    runner: Runner = field(default_factory=SubprocessRunner)
    which: Callable[[str], str | None] = shutil.which
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    uid: int = field(default_factory=os.geteuid)
    root: Path = Path("/")
    backend: BackendName | None = None
    qemu: str | None = None
    qemu_img: str | None = None

    def run(self, *argv: str) -> Completed | None:
        """Run a command; ``None`` if the program is missing or takes too long."""
        try:
            return self.runner.run(argv, deadline=Deadline.after(_LIMIT_S))
        except NixosError:
            return None

    def severity(self, *backends: BackendName) -> State:
        """Return what a failed need of these backends means for the run."""
        return State.LACKING if self.backend in backends else State.LIMITED


def needs(around: Surroundings) -> Iterator[Need]:
    """Look at everything that a run needs, in the order in which it is needed."""
    for look in (
        _kernel,
        _nix,
        _flakes,
        _git,
        _builds,
        _memory,
        _run_room,
        _snapshot_room,
        _kvm,
        _qemu,
        _root,
        _container_tools,
        _namespaces,
        _overlay,
        _cgroups,
    ):
        yield from look(around)


def _kernel(_: Surroundings) -> Iterator[Need]:
    try:
        refuse_where_no_guest_runs()
    except SettingsError as err:
        yield Need(name="Linux", state=State.LACKING, told=err.message, remedy=err.remedy)


def _nix(around: Surroundings) -> Iterator[Need]:
    remedy = "install Nix: apt install nix-bin (Debian, Ubuntu), or the installer of nixos.org; 2.8 or newer"
    answer = around.run("nix", "--version")
    if answer is None or answer.exit_status != 0:
        yield Need(name="nix", state=State.LACKING, told="not on PATH", remedy=remedy)
        return
    told = answer.stdout_text.strip()
    found = _VERSION.findall(told)
    version = tuple(map(int, found[-1])) if found else ()
    lane = next((lane for lane in ("Lix", "Determinate") if lane in told), "Nix")
    old = lane == "Nix" and version < _OLDEST_NIX
    yield Need(
        name="nix",
        state=State.LACKING if old else State.OK,
        told=f"{told} at {around.which('nix')}",
        remedy=remedy if old else "",
    )


def _flakes(around: Surroundings) -> Iterator[Need]:
    answer = around.run("nix", *_FLAKES, "eval", "--expr", "builtins.nixVersion")
    if answer is None:
        return  # without Nix that is told already
    works = answer.exit_status == 0
    if not works and not _NO_FEATURE.search(answer.stderr_text):
        return  # a store that this user may not open, for one: told with the builds
    yield Need(
        name="flakes",
        state=State.OK if works else State.LACKING,
        told="the plugin switches nix-command and flakes on by itself"
        if works
        else _last(answer.stderr_text),
        remedy=""
        if works
        else "let nix.conf allow them: experimental-features = nix-command flakes",
    )


def _git(around: Surroundings) -> Iterator[Need]:
    found = around.which("git")
    yield Need(
        name="git",
        state=State.OK if found else State.LIMITED,
        told=found or "not on PATH",
        remedy=""
        if found
        else "Nix cannot read flakes and inputs that lie in Git repositories without it: install git",
    )


def _builds(around: Surroundings) -> Iterator[Need]:
    socket = around.root / "nix/var/nix/daemon-socket/socket"
    # False, and no error, where this user may not even look for it.
    daemon = os.path.exists(socket)  # noqa: PTH110
    how = "by the daemon" if daemon else "without a daemon"
    trial = _TRIAL_BUILD % os.urandom(4).hex()
    answer = around.run(
        *("nix", *_FLAKES, "build", "--impure", "--no-link", "--json", "--expr", trial)
    )
    if answer is None:
        return
    if answer.exit_status == 0:
        yield Need(name="builds", state=State.OK, told=f"a build works, {how}")
        return
    if _REFUSED.search(answer.stderr_text):
        how = "by the daemon"
        group = _group_of(socket.parent) or "nix-users"
        remedy = f"join the group that the daemon serves: usermod --append --groups {group} USER, and log in again"
    elif around.uid != 0 and not daemon:
        remedy = "start the Nix daemon (Debian: apt install nix-setup-systemd; systemctl start nix-daemon), or run as root"
    elif "build-users-group" in answer.stderr_text:
        remedy = "as root without a daemon: put `build-users-group =` into /etc/nix/nix.conf, or make the group and its users"
    else:
        remedy = "make `nix build` work on this machine first"
    yield Need(
        name="builds",
        state=State.LACKING,
        told=f"{how}: {_last(answer.stderr_text)}",
        remedy=remedy,
    )


def _group_of(path: Path) -> str:
    try:
        return grp.getgrgid(path.stat().st_gid).gr_name
    except (OSError, KeyError):
        return ""


def _memory(around: Surroundings) -> Iterator[Need]:
    free = available_bytes(around.root / "proc/meminfo")
    if free is None:
        return
    enough = free >= _EVALUATION_BYTES
    yield Need(
        name="memory",
        state=State.OK if enough else State.LIMITED,
        told=f"{free // _MIB} MiB available",
        remedy=""
        if enough
        else f"an evaluation of a large host takes up to {_EVALUATION_BYTES // _MIB} MiB, beside the guest's own memory: "
        "end other programs, or add swap",
    )


def _run_room(around: Surroundings) -> Iterator[Need]:
    yield from _room(
        "run directories",
        Path(around.environ.get("TMPDIR") or tempfile.gettempdir()),
        _RUN_BYTES,
        "set TMPDIR to a directory with more room: machines' disks lie there",
    )


def _snapshot_room(_: Surroundings) -> Iterator[Need]:
    yield from _room(
        "snapshots",
        cache_directory("snapshots"),
        _SNAPSHOT_BYTES,
        "without room each VM is booted anew: free some, set XDG_CACHE_HOME, or run `pytest-nixos cache prune`",
    )


def _room(name: str, directory: Path, wanted: int, remedy: str) -> Iterator[Need]:
    place = next((p for p in (directory, *directory.parents) if p.exists()), Path("/"))
    free = shutil.disk_usage(place).free
    writable = os.access(place, os.W_OK)
    enough = writable and free >= wanted
    yield Need(
        name=name,
        state=State.OK if enough else State.LIMITED,
        told=f"{directory}: {free // _MIB} MiB free" + ("" if writable else ", not writable"),
        remedy="" if enough else remedy,
    )


def _kvm(around: Surroundings) -> Iterator[Need]:
    device = around.root / "dev/kvm"
    qemu = around.qemu or around.which("qemu-system-x86_64")
    if qemu is None:
        why = device_refusal(device)
    else:
        probe = KvmProbe(around.runner, VerdictCache.of_user(), device=device)
        verdict = probe.probe(qemu)
        why = None if verdict.usable else verdict.reason
    tried = (
        "a guest ran"
        if qemu
        else "the device opens; tried for real with the host's QEMU at its first boot"
    )
    yield Need(
        name="kvm",
        state=State.OK if why is None else State.LIMITED,
        told=f"{tried} ({_owner(device)})" if why is None else f"{why}{_owner_words(device)}",
        remedy=""
        if why is None
        else f"VMs run without it, about ten times slower; {_kvm_remedy(device, around.uid)}",
    )


def _kvm_remedy(device: Path, uid: int) -> str:
    try:
        state = device.stat()
        group = grp.getgrgid(state.st_gid).gr_name
    except (OSError, KeyError):
        return "switch virtualisation on in the firmware, or in the hypervisor that this machine runs on (nested)"
    if uid == 0 or os.access(device, os.R_OK | os.W_OK):
        return "the machine's own virtualisation is broken or nested: nothing that a package could mend"
    if state.st_gid == 0 or state.st_mode & 0o060 != 0o060:
        return f"give it to a group of its own: groupadd --system --force kvm; chgrp kvm {device}; chmod 660 {device}; then join it"
    return f"add yourself to its group: usermod --append --groups {group} USER, and log in again"


def _owner(device: Path) -> str:
    try:
        state = device.stat()
        return (
            f"{device}, mode {state.st_mode & 0o777:o}, group {grp.getgrgid(state.st_gid).gr_name}"
        )
    except (OSError, KeyError):
        return str(device)


def _owner_words(device: Path) -> str:
    return f" ({_owner(device)})" if device.exists() else ""


def _qemu(around: Surroundings) -> Iterator[Need]:
    if around.backend is not BackendName.VM:
        return
    if around.qemu is None:
        yield Need(name="qemu", state=State.OK, told="comes with the host's VM when that is built")
        return
    yield Need(name="qemu", state=State.OK, told=f"{around.qemu}, of the host's closure")
    found = around.qemu_img is not None
    yield Need(
        name="qemu-img",
        state=State.OK if found else State.LIMITED,
        told=f"{around.qemu_img}" if found else "neither in the host's closure nor on PATH",
        remedy=""
        if found
        else "without it each VM is booted anew: apt install qemu-utils (Debian, Ubuntu), dnf install qemu-img (Fedora)",
    )


def _root(around: Surroundings) -> Iterator[Need]:
    is_root = around.uid == 0
    yield Need(
        name="root",
        state=State.OK if is_root else around.severity(BackendName.CONTAINER),
        told="yes" if is_root else f"user id {around.uid}",
        remedy="" if is_root else "containers need root (sudo), VMs do not: --nixos-backend vm",
    )


def _container_tools(around: Surroundings) -> Iterator[Need]:
    for name, remedy in _CONTAINER_TOOLS.items():
        path = around.which(name)
        yield Need(
            name=name,
            state=State.OK if path else around.severity(BackendName.CONTAINER),
            told=path or "not on PATH; containers need it",
            remedy="" if path else remedy,
        )


def _namespaces(around: Surroundings) -> Iterator[Need]:
    if around.uid != 0 or not around.which("unshare"):
        return
    answer = around.run(
        *("unshare", "--mount", "--pid", "--net", "--uts", "--ipc", "--cgroup", "--fork", "true")
    )
    works = answer is not None and answer.exit_status == 0
    yield Need(
        name="namespaces",
        state=State.OK if works else around.severity(BackendName.CONTAINER),
        told="can be made" if works else _last(answer.stderr_text if answer else ""),
        remedy=""
        if works
        else "this machine is a container that may not make one (docker: --privileged): run the host as a VM",
    )


def _overlay(around: Surroundings) -> Iterator[Need]:
    try:
        known = "overlay" in (around.root / "proc/filesystems").read_text().split()
    except OSError:
        return
    yield Need(
        name="overlayfs",
        state=State.OK if known else around.severity(BackendName.CONTAINER),
        told="the kernel has it" if known else "the kernel has it not, or not loaded",
        remedy="" if known else "modprobe overlay: a container's store lies on it",
    )


def _cgroups(around: Surroundings) -> Iterator[Need]:
    base = around.root / "sys/fs/cgroup"
    unified = (base / "cgroup.controllers").exists()
    mixed = (base / "unified").exists() or (base / "memory").exists()
    told = "unified" if unified else "version 1" if mixed else "not mounted"
    yield Need(
        name="cgroups",
        state=State.OK if unified else State.LIMITED,
        told=told,
        remedy=""
        if unified
        else "containers run, and cannot be frozen or limited: boot with systemd.unified_cgroup_hierarchy=1",
    )


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error:")]
    return (errors or lines or ["it said nothing"])[-1][:300]
