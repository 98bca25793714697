"""The two ways up for one VM: by its run script, or as a clone of its snapshot."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
from msgspec.structs import replace

from pytest_nixos.errors import MachineError, NixosError
from pytest_nixos.local.memory import HostMemoryError, check_memory
from pytest_nixos.local.process import Runner
from pytest_nixos.local.sandbox import Sandbox, SandboxedRunner
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.base import MachineSpec
from pytest_nixos.machine.boot.events import BootEventKind, BootListener
from pytest_nixos.machine.boot.internet import NoWayOut
from pytest_nixos.machine.boot.news import BootNews
from pytest_nixos.machine.boot.settle import SettleLimits
from pytest_nixos.machine.capabilities import BootsFrom
from pytest_nixos.machine.channel.protocol import PROTOCOL_VERSION, guest_script
from pytest_nixos.machine.channel.transport import SerialChannel
from pytest_nixos.machine.disks.images import OwnDisks
from pytest_nixos.machine.disks.unlock import answer_to
from pytest_nixos.machine.network.wire import filter_argv, user_networks
from pytest_nixos.machine.snapshot.clone import Clone
from pytest_nixos.machine.snapshot.clone_disks import make_disks
from pytest_nixos.machine.snapshot.record import MEMORY, Snapshot
from pytest_nixos.machine.snapshot.store import CacheLimits, SnapshotStore
from pytest_nixos.machine.spare.claim import Claimed, end_spares
from pytest_nixos.machine.vm.argv import (
    Acceleration,
    accelerator_argv,
    card_ids,
    cards_argv,
    disk_image,
    kernel_params,
    machine_argv,
    monitor_argv,
    qemu_options_name,
    run_environment,
    script_paths,
    secrets_argv,
    stand_in_socket,
)
from pytest_nixos.machine.vm.backdoor import backdoor_argv
from pytest_nixos.machine.vm.harmless import harmless_script
from pytest_nixos.machine.vm.plan import VmPlan
from pytest_nixos.machine.vm.programs import NO_QEMU_IMG, find_qemu_img
from pytest_nixos.machine.vm.run_script import RunScript, boots_from, qemu_version, serial_console
from pytest_nixos.machine.vm.running import VmRunning
from pytest_nixos.machine.vm.stage_1_ssh import StageOneSsh
from pytest_nixos.machine.vm.storage import ImageTool
from pytest_nixos.machine.vm.store_image import STORE_IMAGE, ImageBlock, StoreImages

__all__ = ["SnapshotOptions", "VmLauncher", "VmOptions"]

# What the user can give a QEMU or a kernel beside the host's config.
_SHAPING = ("QEMU_OPTS", "QEMU_NET_OPTS", "QEMU_KERNEL_PARAMS")
_STORE_IMAGE = "virtualisation.useNixStoreImage"
_KERNEL_PREFIX = "NIXPKGS_QEMU_KERNEL_"
_CPU_FACTS = ("model name", "flags", "Features", "CPU part")


class SnapshotOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How snapshots are used.

    :param not_before_s: snapshots older than this are replaced; seconds since 1970.
    """

    store: SnapshotStore
    limits: CacheLimits = msgspec.field(default_factory=CacheLimits)
    not_before_s: float = 0.0


class VmOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How VMs are run.

    :param acceleration: ``AUTO`` uses KVM where it truly works.
    :param restrict_network: keep guests from reaching beyond the host machine even if the run
        script was built without the instrumentation, which does the same.
    :param grace_s: seconds that QEMU and its helpers get between SIGTERM and SIGKILL.
    :param snapshots: how snapshots are used, ``None`` for not at all.
    :param sandboxed: run the script, QEMU and its tools in a sandbox, see
        :mod:`pytest_nixos.local.sandbox`.
    :param network: whether QEMU itself reaches this machine's network from there.
    :param stand_in: whether a stand-in for the internet answers in the sandbox's own network.
    :param store_images: where images of stores are kept; ``None`` for what the run script does.
    :param takes_spares: whether a paused machine that waits for such a run is taken over.
    """

    acceleration: Acceleration = Acceleration.AUTO
    restrict_network: bool = False
    grace_s: float = 2.0
    snapshots: SnapshotOptions | None = None
    sandboxed: bool = True
    network: bool = False
    stand_in: bool = False
    store_images: StoreImages | None = None
    takes_spares: bool = False


class VmLauncher(msgspec.Struct, frozen=True, kw_only=True):
    """Starts one machine.

    :param acceleration: decided already, not ``AUTO``.
    :param inherited: what the run script inherits.
    :param check_place: raises where no machine at all can be started here; asked before a boot.
    """

    spec: MachineSpec
    script: RunScript
    acceleration: Acceleration
    options: VmOptions
    inherited: Mapping[str, str]
    on_event: BootListener
    runner: Runner
    check_place: Callable[[], None] = lambda: None

    def cold(
        self, extra_argv: Sequence[str], deadline: Deadline, *, writable: tuple[Path, ...] = ()
    ) -> VmRunning:
        """Boot the machine by its run script and wait until its boot has settled.

        :param extra_argv: further QEMU arguments, after all others.
        :param writable: what QEMU writes to beside the run directory.
        :raises BootError: if it does not get there; nothing is left running.
        """
        self.check_place()
        news = BootNews(self.spec.host.name, self.on_event)
        sandbox = self._sandbox(writable=writable)
        running = self._running(news, extra_argv, sandbox)
        with running.life.stopped_on_error():
            running.boot(deadline, make_disks=lambda: self._make_own_disks(sandbox, news))
        return running

    def clone(
        self, snapshot: Snapshot, stack: contextlib.ExitStack, deadline: Deadline
    ) -> VmRunning:
        """Start the machine from a snapshot; what `stack` holds is undone at its end.

        :raises HostMemoryError: if the host machine has too little memory.
        :raises MachineError: if it does not start.
        """
        record, run_dir = snapshot.record, self.spec.run_dir
        self._check_memory(snapshot)
        news = BootNews(self.spec.host.name, self.on_event)
        news.resume(record.console)
        clone = Clone.of(record.argv, record.cwd, snapshot=snapshot.directory, run_dir=run_dir)

        sandbox = self._sandbox_of_clone(snapshot)

        def disks() -> None:
            if self._own_disks is not None:
                self._own_disks.write_script(self._stage_1_files())
            make_disks(
                self._confined(sandbox),
                clone.disks,
                qemu_img=find_qemu_img(self.script) or "qemu-img",
                snapshot=snapshot.directory,
                run_dir=run_dir,
            )

        running = self._running(news, (), sandbox)
        # First in, last out: the snapshot stays in use until its clone is gone.
        running.life.undo.push(stack.pop_all())
        with running.life.stopped_on_error():
            running.restore(snapshot, clone, deadline, make_disks=disks)
        return running

    def adopt(
        self,
        snapshot: Snapshot,
        claimed: Claimed,
        stack: contextlib.ExitStack,
        deadline: Deadline,
    ) -> VmRunning:
        """Go on with a spare of that snapshot; what `stack` holds is undone at its end.

        :raises MachineError: if it does not answer.
        """
        news = BootNews(self.spec.host.name, self.on_event)
        news.resume(snapshot.record.console)
        there = replace(self, spec=replace(self.spec, run_dir=claimed.run_dir))
        running = there.adopted(snapshot, news)
        running.life.undo.push(stack.pop_all())
        with running.life.stopped_on_error():
            running.adopt(claimed, deadline=deadline)
        return running

    def adopted(self, snapshot: Snapshot, news: BootNews) -> VmRunning:
        """Return what goes on with a clone that runs in this machine's directory."""
        return self._running(news, (), self._sandbox_of_clone(snapshot))

    def _sandbox_of_clone(self, snapshot: Snapshot) -> Sandbox | None:
        return self._sandbox(
            # QEMU opens the memory for writing, and keeps what it writes to itself.
            writable=(snapshot.directory / MEMORY,),
            readable=(snapshot.directory,),
        )

    def _check_memory(self, snapshot: Snapshot) -> None:
        try:
            check_memory(self.spec.host.name, guest_bytes=snapshot.memory_bytes)
        except HostMemoryError:
            # What waits for later goes first.
            if not end_spares():
                raise
            check_memory(self.spec.host.name, guest_bytes=snapshot.memory_bytes)

    @property
    def rights(self) -> Mapping[str, str]:
        """Name what a saved machine gets anew with each start, and a running one has."""
        return {
            "sandboxed": str(self.options.sandboxed),
            "network": str(self.options.network),
            "user": str(os.getuid()),
        }

    @property
    def can_wait(self) -> bool:
        """Whether a machine can be a spare: nothing but its QEMU and files of its own serves it."""
        return not (self.spec.host.is_test_node or self.options.stand_in or self.spec.cards)

    def parts(self, memory_mib: int) -> dict[str, str]:
        """Name everything that shapes the machine, for the key of its snapshot."""
        environment = {name: self.inherited.get(name, "") for name in _SHAPING}
        environment |= {n: v for n, v in self.inherited.items() if n.startswith(_KERNEL_PREFIX)}
        return {
            "system": str(self.spec.system),
            "script": os.path.realpath(self.script.path),
            "qemu": _identity(self.script.qemu_binary),
            "acceleration": self.acceleration.value,
            "processor": _processor() if self.acceleration is Acceleration.KVM else "",
            "memory": str(memory_mib),
            "cores": str(self.spec.cores or ""),
            "restricted": str(self.options.restrict_network),
            "stand-in": str(self.options.stand_in),
            "protocol": str(PROTOCOL_VERSION),
            "disks": "" if self._own_disks is None else self._own_disks.digest,
            "secrets": "" if self.spec.secrets is None else self.spec.secrets.digest,
            **self._card_parts(),
            **environment,
        }

    def _sandbox(
        self, *, writable: tuple[Path, ...] = (), readable: tuple[Path, ...] = ()
    ) -> Sandbox | None:
        if not self.options.sandboxed:
            return None
        return Sandbox(
            writable=(self.spec.run_dir, *writable),
            # The script's own package may lie in another store than /nix/store.
            readable=(self.spec.system.resolve(), *readable, *named_files(self.inherited)),
            network=self.options.network,
            served_by=stand_in_socket(self.spec.run_dir) if self.options.stand_in else None,
        )

    @property
    def unsavable_disks(self) -> str:
        """Why the host's own disks keep the machine from being saved, ``""`` if they do not."""
        return "" if self._own_disks is None else self._own_disks.unsavable

    @property
    def _own_disks(self) -> OwnDisks | None:
        return OwnDisks.of(self.spec.host, self.spec.run_dir, disk_image(self.spec.run_dir))

    @property
    def _stage_1_ssh(self) -> StageOneSsh | None:
        return StageOneSsh.of(self.spec.host, self.spec.run_dir)

    def _stage_1_files(self) -> Mapping[str, str]:
        return {} if self._stage_1_ssh is None else self._stage_1_ssh.files()

    def _make_own_disks(self, sandbox: Sandbox | None, news: BootNews) -> None:
        disks = self._own_disks
        if disks is None:
            return
        qemu_img = find_qemu_img(self.script)
        if qemu_img is None:
            raise MachineError(
                f"{self.spec.host.name}: {NO_QEMU_IMG}",
                remedy="keep virtualisation.qemu.package a QEMU with its tools",
            )
        disks.make_images(self._confined(sandbox), qemu_img)
        disks.write_script(self._stage_1_files())
        news.tell(BootEventKind.OWN_DISKS, f"the host's own disks: {disks.layout.words}")

    def _confined(self, sandbox: Sandbox | None) -> Runner:
        return self.runner if sandbox is None else SandboxedRunner(self.runner, sandbox)

    def _running(
        self, news: BootNews, extra_argv: Sequence[str], sandbox: Sandbox | None
    ) -> VmRunning:
        run_dir, direct = self.spec.run_dir, boots_from(self.script) is BootsFrom.SCRIPT
        emulated = self.acceleration is Acceleration.TCG
        added = kernel_params(
            emulated=emulated, pace=self.spec.pace, boot_timeout_s=self.spec.boot_timeout_s
        )
        env = run_environment(
            run_dir,
            self.script,
            serial=serial_console(self.spec.host.guest_system),
            restrict_network=self.options.restrict_network,
            inherited=self.inherited,
            added_kernel_params=added,
        )
        plan = VmPlan(
            name=self.spec.host.name,
            run_dir=run_dir,
            argv=lambda: self._argv(extra_argv, news),
            env=env if sandbox is None else Sandbox.environment(env),
            sandbox=sandbox,
            grace_s=self.options.grace_s,
            networks=self._networks,
            images=ImageTool(
                program=find_qemu_img(self.script) or "", runner=self._confined(sandbox)
            ),
            boots_from=boots_from(self.script),
            limits=SettleLimits().at(self.spec.pace),
            pace=self.spec.pace,
            # Where a boot loader starts the kernel, the variable has no effect.
            added_kernel_params=added if direct else (),
            store_image=self._has_store_image,
            no_way_out=None if self.options.network else NoWayOut.of(self.spec.host),
            channel_script=guest_script() if self.spec.host.is_test_node else "",
            answer=answer_to if self.spec.host.own_disks else _no_answer,
            stage_1_ssh=self._stage_1_ssh,
        )
        return VmRunning(plan, news)

    def _card_parts(self) -> dict[str, str]:
        if not self.spec.cards:
            return {}
        return {"cards": " ".join(f"{card.hardware}={card.lease}" for card in self.spec.cards)}

    @property
    def _networks(self) -> tuple[str, ...]:
        """Ids of the networks that a stranger stands on."""
        return card_ids(self.spec.cards) or user_networks(self.script.text)

    @property
    def _has_store_image(self) -> bool:
        """Whether the guest's store is an image of our making, with snapshots or without."""
        saved = self.options.snapshots is not None and not self.spec.host.snapshot_refusal
        return saved or _STORE_IMAGE in self.spec.host.changed

    def _given_image(self, news: BootNews) -> ImageBlock | None:
        """Put the image of the store in the machine's place; return what of the script makes it, so
        that it is left out, ``None`` where the script makes it itself.
        """
        images = self.options.store_images
        block = ImageBlock.of(self.script.text) if images and self.script.is_whole else None
        if images is None or block is None:
            return None
        target = script_paths(self.spec.run_dir)["TMPDIR"] / STORE_IMAGE
        try:
            images.give(
                block,
                target,
                confined=lambda directory: self._confined(self._sandbox(writable=(directory,))),
                say=lambda text: news.tell(BootEventKind.STORE_IMAGE, text),
                deadline=Deadline.after(self.spec.boot_timeout_s, recall=self.spec.recall),
            )
            images.prune(
                CacheLimits() if self.options.snapshots is None else self.options.snapshots.limits
            )
        except NixosError as err:
            news.tell(BootEventKind.STORE_IMAGE, f"{err.message}; the run script makes it")
            return None
        return block

    def _argv(self, extra_argv: Sequence[str], news: BootNews) -> tuple[str, ...]:
        user_cpu = qemu_options_name(self.inherited.get("QEMU_OPTS", ""), "-cpu")
        binary, run_dir = self.script.qemu_binary, self.spec.run_dir
        version = qemu_version(self._confined(self._sandbox()), binary) if binary else None
        return (
            str(harmless_script(self.script, run_dir, image_block=self._given_image(news))),
            *accelerator_argv(self.acceleration, self.script, version, user_cpu=user_cpu),
            *machine_argv(
                memory_mib=self.spec.memory_mib,
                cores=self.spec.cores,
            ),
            *monitor_argv(run_dir),
            *SerialChannel.qemu_argv(run_dir),
            *(backdoor_argv(run_dir) if self.spec.host.is_test_node else ()),
            *secrets_argv(self.spec.secrets),
            *cards_argv(run_dir, self.spec.cards, version),
            # After cards, which may have slots of their own on the bus.
            *(() if self._own_disks is None else self._own_disks.argv),
            *filter_argv(run_dir, self._networks),
            *extra_argv,
        )


def _no_answer(_prompt: str) -> str:
    return ""


def named_files(inherited: Mapping[str, str]) -> tuple[Path, ...]:
    """List the files of this machine that the user's variables name to the run script: kernels
    and certificates.
    """
    values = [
        value
        for name, value in inherited.items()
        if name == "NIX_SSL_CERT_FILE" or name.startswith(_KERNEL_PREFIX)
    ]
    paths = (Path(value) for value in values if value.startswith("/"))
    return tuple(path.resolve() for path in paths if path.is_file() and path.is_absolute())


def _identity(binary: str | None) -> str:
    """Name a program so that another one in its place has another name."""
    if binary is None:
        return ""
    path = os.path.realpath(binary)
    try:
        state = Path(path).stat()
    except OSError:
        return path
    return f"{path} {state.st_size} {state.st_mtime_ns}"


def _processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Name the host machine's processor: a guest under KVM has seen its features."""
    try:
        lines = cpuinfo.read_text().partition("\n\n")[0].splitlines()
    except OSError:
        return ""
    facts = sorted(line for line in lines if line.startswith(_CPU_FACTS))
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()
