"""How one VM is started, told once, before it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from pytest_nixos.local.pace import Pace
from pytest_nixos.local.sandbox import Sandbox
from pytest_nixos.machine.boot.internet import NoWayOut
from pytest_nixos.machine.boot.settle import SettleLimits
from pytest_nixos.machine.capabilities import BootsFrom
from pytest_nixos.machine.vm.stage_1_ssh import StageOneSsh
from pytest_nixos.machine.vm.storage import ImageTool

__all__ = ["VmPlan"]


class VmPlan(msgspec.Struct, frozen=True, kw_only=True):
    """How one VM is started.

    :param name: name of the host.
    :param argv: gives the run script with our arguments; asked when it is started, which a clone is
        not.
    :param env: its whole environment.
    :param grace_s: seconds between SIGTERM and SIGKILL.
    :param images: copies and makes images of disks.
    :param answer: what is typed at prompts on the console, ``""`` for nothing.
    :param stage_1_ssh: by which stage 1 is unlocked, ``None`` for at the console.
    :param networks: ids of QEMU's user networks; a stranger has a place to stand on each.
    :param limits: when a boot counts as settled.
    :param pace: how slow this machine is.
    :param added_kernel_params: what the guest's kernel is told beside what its host declares.
    :param sandbox: what the run script and QEMU run in, ``None`` for as this user.
    :param store_image: whether the guest's store is an image, which is read-only.
    :param no_way_out: what tells units that need the internet, ``None`` where the guest reaches it.
    :param channel_script: serves the root command channel where the guest's own config does not
        start it, ``""`` where it does.
    """

    name: str
    run_dir: Path
    argv: Callable[[], Sequence[str]]
    env: Mapping[str, str]
    grace_s: float
    networks: tuple[str, ...]
    images: ImageTool
    boots_from: BootsFrom = BootsFrom.SCRIPT
    limits: SettleLimits = msgspec.field(default_factory=SettleLimits)
    pace: Pace = msgspec.field(default_factory=Pace)
    added_kernel_params: tuple[str, ...] = ()
    store_image: bool = False
    sandbox: Sandbox | None = None
    no_way_out: NoWayOut | None = None
    channel_script: str = ""
    answer: Callable[[str], str] = lambda _prompt: ""
    stage_1_ssh: StageOneSsh | None = None
