"""The VM backend: the host's own run script, watched from its first line to its last process."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from pytest_nixos.machine.base import BackendName, MachineSpec
from pytest_nixos.machine.boot_events import (
    BootEventKind,
    BootListener,
    ignore_boot_event,
)
from pytest_nixos.machine.boot_news import BootNews
from pytest_nixos.machine.kvm import KvmProbe, VerdictCache
from pytest_nixos.machine.net_probe import FrameProber
from pytest_nixos.machine.qemu_argv import (
    Acceleration,
    accelerator_argv,
    check_run_dir,
    machine_argv,
    monitor_argv,
    qemu_options_name,
    run_environment,
)
from pytest_nixos.machine.run_script import (
    RunScript,
    boots_from,
    find_run_script,
    parse_run_script,
    qemu_version,
    serial_console,
)
from pytest_nixos.machine.settle import SettleLimits
from pytest_nixos.machine.transport import SerialChannel
from pytest_nixos.machine.vm_running import VmRunning
from pytest_nixos.process import Runner, SubprocessRunner
from pytest_nixos.timing import Deadline

__all__ = ["VmBackend", "VmOptions", "VmRunning"]


@dataclass(frozen=True, slots=True, kw_only=True)
class VmOptions:
    """How VMs are run.

    :param acceleration: ``AUTO`` uses KVM where it truly works.
    :param restrict_network: keep guests from reaching beyond the host machine even if the run script was
        built without the instrumentation, which does the same.
    :param reboots: let the guest reboot in place; otherwise a reboot ends QEMU.
    :param settle: when a boot counts as finished or as stuck.
    :param grace_s: seconds that QEMU and its helpers get between SIGTERM and SIGKILL.
    :param extra_argv: further QEMU arguments, after all others.
    """

    acceleration: Acceleration = Acceleration.AUTO
    restrict_network: bool = False
    reboots: bool = False
    settle: SettleLimits = field(default_factory=SettleLimits)
    grace_s: float = 2.0
    extra_argv: tuple[str, ...] = ()


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

    def start(self, spec: MachineSpec, *, deadline: Deadline) -> VmRunning:
        """Start a machine and wait until its boot has settled.

        :raises BootError: if it does not get there; nothing is left running.
        :raises MachineError: if it cannot be started at all.
        """
        inherited = dict(os.environ if self._environment is None else self._environment)
        check_run_dir(spec.run_dir)
        script = parse_run_script(find_run_script(spec.system, spec.host.program))
        news = BootNews(spec.host.name, self._on_event)
        argv = self._argv(spec, script, inherited, news)
        env = run_environment(
            spec.run_dir,
            script,
            serial=serial_console(spec.host.system),
            restrict_network=self._options.restrict_network,
            inherited=inherited,
            emulated=any("accel=tcg" in word for word in argv),
        )
        prober = FrameProber(spec.run_dir) if FrameProber.applicable(script.text) else None
        with contextlib.ExitStack() as stack:
            running = VmRunning(
                spec.host.name,
                spec.run_dir,
                news,
                stack,
                argv,
                env,
                grace_s=self._options.grace_s,
                prober=prober,
                boots_from=boots_from(script),
                limits=self._options.settle,
            )
            running.boot(deadline)
            running.keep(stack.pop_all())
        return running

    def _argv(
        self, spec: MachineSpec, script: RunScript, inherited: Mapping[str, str], news: BootNews
    ) -> tuple[str, ...]:
        user_cpu = qemu_options_name(inherited.get("QEMU_OPTS", ""), "-cpu")
        acceleration = self._acceleration(spec, script, inherited, news)
        version = qemu_version(self._runner, script.qemu_binary) if script.qemu_binary else None
        return (
            str(script.path),
            *accelerator_argv(acceleration, script, version, user_cpu=user_cpu),
            *machine_argv(
                memory_mib=spec.memory_mib, cores=spec.cores, reboots=self._options.reboots
            ),
            *monitor_argv(spec.run_dir),
            *SerialChannel.qemu_argv(spec.run_dir),
            *(FrameProber.qemu_argv(spec.run_dir) if FrameProber.applicable(script.text) else ()),
            *self._options.extra_argv,
        )

    def _acceleration(
        self, spec: MachineSpec, script: RunScript, inherited: Mapping[str, str], news: BootNews
    ) -> Acceleration:
        if self._options.acceleration is not Acceleration.AUTO:
            return self._options.acceleration
        reason = self._refusal(spec.host.system, script, inherited)
        if reason is None:
            return Acceleration.KVM
        if not self._warned:
            self._warned = True
            news.tell(BootEventKind.NO_KVM, f"no KVM, the machine runs slowly (TCG): {reason}")
        return Acceleration.TCG

    def _refusal(self, system: str, script: RunScript, inherited: Mapping[str, str]) -> str | None:
        guest = system.partition("-")[0]
        if guest and guest != os.uname().machine:
            return f"a {guest} guest on {os.uname().machine}"
        if script.qemu_binary is None:
            return f"{script.path.name} does not tell which QEMU it starts, so KVM cannot be tried"
        probe = KvmProbe(self._runner, VerdictCache.of_user(inherited))
        verdict = probe.probe(script.qemu_binary, cpu=script.cpu or "max")
        return None if verdict.usable else verdict.reason
