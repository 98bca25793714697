"""The VM backend: the host's own run script, watched from its first line to its last process."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pytest_nixos.errors import MachineError
from pytest_nixos.local.pace import Pace
from pytest_nixos.local.process import Completed, Runner, SubprocessRunner
from pytest_nixos.local.sandbox import Sandbox, SandboxedRunner, sandbox_refusal
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.base import BackendName, MachineSpec
from pytest_nixos.machine.boot.events import (
    BootEventKind,
    BootListener,
    ignore_boot_event,
)
from pytest_nixos.machine.boot.news import BootNews
from pytest_nixos.machine.qemu.kvm import KvmProbe, VerdictCache
from pytest_nixos.machine.vm.argv import Acceleration, check_run_dir
from pytest_nixos.machine.vm.harmless import ALONE, harmless, local_ports
from pytest_nixos.machine.vm.launcher import SnapshotOptions, VmLauncher, VmOptions
from pytest_nixos.machine.vm.programs import NO_QEMU_IMG, find_qemu_img
from pytest_nixos.machine.vm.restore import WarmStart, no_snapshot
from pytest_nixos.machine.vm.run_script import (
    RunScript,
    effective_memory_mib,
    find_run_script,
    forwards_ports,
    parse_run_script,
    restricts_network,
    unsavable_script,
)
from pytest_nixos.machine.vm.running import VmRunning

__all__ = ["UNSAFE_OPTION", "SnapshotOptions", "VmBackend", "VmOptions", "VmRunning"]

#: Lets the run script and QEMU run with all rights of this user.
UNSAFE_OPTION = "--nixos-run-script-has-my-rights"


class VmBackend:
    """Runs a host by the run script that ``config.system.build.vm`` made for it.

    :param on_event: told what happens during boots, from any thread.
    :param runner: runs the short commands that find out about QEMU.
    :param environment: what the run script inherits, this process's environment if ``None``.
    """

    name = BackendName.VM

    def __init__(
        self,
        options: VmOptions | None = None,
        on_event: BootListener = ignore_boot_event,
        *,
        runner: Runner | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._options = options or VmOptions()
        self._on_event = on_event
        self._runner = runner or SubprocessRunner()
        self._environment = environment
        self._warned = False
        self._refusal_of_sandbox: str | None = None
        self._pace = Pace()

    def start(self, spec: MachineSpec, *, deadline: Deadline) -> VmRunning:
        """Start a machine and wait until its boot has settled, or restore it from its snapshot.

        :raises BootError: if it does not get there; nothing is left running.
        :raises MachineError: if it cannot be started at all.
        """
        launcher, warm = self._ways(spec)
        if taken := self._taken(launcher, warm, deadline):
            return taken
        return launcher.cold((), deadline) if warm is None else warm.start(deadline)

    def clone(self, spec: MachineSpec, *, deadline: Deadline) -> VmRunning:
        """Start a machine from its snapshot, or not at all.

        :raises MachineError: if there is none, or it does not start; nothing is left running.
        """
        launcher, warm = self._ways(spec)
        if warm is None:
            raise no_snapshot(spec.host.name)
        if taken := self._taken(launcher, warm, deadline):
            return taken
        return warm.clone(deadline)

    @property
    def options(self) -> VmOptions:
        """How its VMs are run."""
        return self._options

    def spare_key(self, spec: MachineSpec) -> str:
        """Name all that a spare of this machine has to be, ``""`` where it can have none."""
        launcher, warm = self._ways(spec)
        return "" if warm is None or not launcher.can_wait else warm.spare_key

    def _taken(
        self, launcher: VmLauncher, warm: WarmStart | None, deadline: Deadline
    ) -> VmRunning | None:
        """Go on with a spare, which has its sandbox already."""
        if warm is None or not self._options.takes_spares or not launcher.can_wait:
            return None
        return warm.take(deadline)

    def _ways(self, spec: MachineSpec) -> tuple[VmLauncher, WarmStart | None]:
        """Return what starts a machine, and what does it from a snapshot where it may have one."""
        inherited = dict(os.environ if self._environment is None else self._environment)
        check_run_dir(spec.run_dir)
        self._pace = spec.pace
        script = parse_run_script(find_run_script(spec.system, spec.host.program))
        news = BootNews(spec.host.name, self._on_event)
        self._tell_no_sandbox(news)
        self._check_ports(spec, script, inherited, news)
        self._check_stand_in(spec, script)
        if replaced := harmless(script.text)[1]:
            alone = any(words.startswith(ALONE) for words in replaced)
            lacks = "is alone" if alone else "has no display and no sound of this machine"
            news.tell(BootEventKind.NO_DISPLAY, f"the VM {lacks}: {', '.join(replaced)} left out")
        acceleration = self._acceleration(spec, script, news)

        def check_place() -> None:
            self._check_sandbox(spec)

        launcher = VmLauncher(
            spec=spec,
            script=script,
            acceleration=acceleration,
            options=self._options,
            inherited=inherited,
            on_event=self._on_event,
            runner=self._runner,
            check_place=check_place,
        )
        use = self._options.snapshots
        if use is None:
            return launcher, None
        refusal = (
            spec.host.snapshot_refusal
            or _unsavable_secrets(spec)
            or launcher.unsavable_disks
            or unsavable_script(script, inherited)
            or ("" if find_qemu_img(script) else NO_QEMU_IMG)
        )
        memory_mib = effective_memory_mib(script, inherited, spec.memory_mib)
        if refusal or memory_mib is None:
            why = refusal or "the size of its memory is not known"
            news.tell(BootEventKind.SNAPSHOT, f"booting without a snapshot: {why}")
            return launcher, None
        return launcher, WarmStart(
            store=use.store,
            limits=use.limits,
            launcher=launcher,
            name=spec.host.name,
            parts=launcher.parts(memory_mib),
            run_dir=spec.run_dir,
            memory_mib=memory_mib,
            not_before_s=use.not_before_s,
            tell=news.tell,
            rights=launcher.rights,
            check_place=check_place,
        )

    def _tell_no_sandbox(self, news: BootNews) -> None:
        if not self._options.sandboxed and self._refusal_of_sandbox is None:
            self._refusal_of_sandbox = ""
            news.tell(
                BootEventKind.NO_SANDBOX,
                f"the run script and QEMU run with all rights of this user ({UNSAFE_OPTION})",
            )

    def _check_sandbox(self, spec: MachineSpec) -> None:
        if self._refusal_of_sandbox is None:
            self._refusal_of_sandbox = sandbox_refusal(self._runner)
        if self._refusal_of_sandbox:
            raise MachineError(
                f"{spec.host.name}: no sandbox for the host's run script can be made here: {self._refusal_of_sandbox}",
                remedy="let this user make user namespaces (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, "
                "kernel.apparmor_restrict_unprivileged_userns; docker run --security-opt seccomp=unconfined); "
                f"a flake that you trust like your own shell may run with {UNSAFE_OPTION}",
            )

    def _check_ports(
        self, spec: MachineSpec, script: RunScript, inherited: Mapping[str, str], news: BootNews
    ) -> None:
        """See to it that a guest is not served to everybody's network."""
        if not forwards_ports(script, inherited):
            return
        if self._options.network:
            if local_ports(script.text) != script.text:
                news.tell(
                    BootEventKind.CLOSED_PORTS,
                    "virtualisation.forwardPorts is served on 127.0.0.1, not on all addresses of this machine",
                )
            return
        if not self._options.sandboxed:
            raise MachineError(
                f"{spec.host.name}: QEMU would listen on ports of this machine (virtualisation.forwardPorts), on all of its addresses",
                remedy=f"leave out {UNSAFE_OPTION}, which keeps QEMU's ports to itself, or say --nixos-network open",
            )
        news.tell(
            BootEventKind.CLOSED_PORTS,
            "virtualisation.forwardPorts is not served to this machine: --nixos-network is restricted",
        )

    def _check_stand_in(self, spec: MachineSpec, script: RunScript) -> None:
        """See to it that a guest that is to have a stand-in reaches it."""
        if self._options.stand_in and restricts_network(script):
            raise MachineError(
                f"{spec.host.name}: --nixos-network stand-in is out of the guest's reach: its run script has restrict=on",
                remedy="leave virtualisation.restrictNetwork to the plugin, and let it evaluate the host (no --nixos-prepared); "
                "or say --nixos-network restricted",
            )

    def _acceleration(self, spec: MachineSpec, script: RunScript, news: BootNews) -> Acceleration:
        if self._options.acceleration is not Acceleration.AUTO:
            return self._options.acceleration
        reason = self._refusal(spec, script)
        if reason is None:
            return Acceleration.KVM
        if not self._warned:
            self._warned = True
            slow = "no KVM, so the guest is emulated (TCG), about ten times slower"
            news.tell(BootEventKind.NO_KVM, f"{slow}: {reason}; `pytest-nixos doctor` tells more")
        return Acceleration.TCG

    def _refusal(self, spec: MachineSpec, script: RunScript) -> str | None:
        guest = spec.host.guest_system.partition("-")[0]
        if guest and guest != os.uname().machine:
            return f"a {guest} guest on {os.uname().machine}"
        if script.qemu_binary is None:
            return f"{script.path.name} does not tell which QEMU it starts, so KVM cannot be tried"
        runner = self._runner
        if self._options.sandboxed:
            # What a sandbox that cannot be made does to QEMU is no verdict on KVM.
            tried = _TriedFirst(runner, lambda: self._check_sandbox(spec))
            runner = SandboxedRunner(tried, Sandbox())
        probe = KvmProbe(runner, VerdictCache.of_user(), pace=self._pace)
        verdict = probe.probe(script.qemu_binary, cpu=script.cpu or "max")
        return None if verdict.usable else verdict.reason


class _TriedFirst:
    """A :class:`Runner` before whose commands something is looked at."""

    def __init__(self, inner: Runner, check: Callable[[], None]) -> None:
        self._inner = inner
        self._check = check

    def run(self, argv: Sequence[str], **how: Any) -> Completed:
        self._check()
        return self._inner.run(argv, **how)


def _unsavable_secrets(spec: MachineSpec) -> str:
    may = spec.secrets is None or spec.secrets.may_be_saved
    return "" if may else "it holds secrets that you gave, which are not kept"
