"""Which places of a host survive a reboot, by its config alone."""

from __future__ import annotations

from typing import cast

import pytest

from checks.filesystem import test_persistence as check
from checks.filesystem.persistence import Places, places_of
from pytest_nixos.findings import Evidence
from pytest_nixos.machine.command import CommandResult
from pytest_nixos.nix.config.declared import FileSystem
from tests.unit.standards.samples import host_config


def fs(point: str, device: str, kind: str = "ext4", *options: str) -> FileSystem:
    return FileSystem(mount_point=point, device=device, fs_type=kind, options=options)


TMPFS = fs("/", "none", "tmpfs")
PERSIST = fs("/persist", "/dev/disk/by-label/persist")


def places(*systems: FileSystem) -> Places:
    return places_of(host_config(file_systems={s.mount_point: s for s in systems}))


def test_a_root_on_a_disk_forgets_nothing() -> None:
    root = fs("/", "/dev/disk/by-label/root")
    assert places(root, fs("/scratch", "none", "tmpfs")).forgotten == ()


def test_bound_places_are_kept_where_their_source_lies_on_a_disk() -> None:
    found = places(
        TMPFS,
        PERSIST,
        fs("/nix", "/dev/disk/by-label/nix"),
        fs("/boot", "/dev/disk/by-label/ESP", "vfat"),
        fs("/var/lib", "/persist/var/lib", "none", "bind"),
        fs("/etc/ssh", "/persist/etc/ssh", "none", "bind"),
        fs("/cache", "/volatile", "none", "bind"),
    )
    assert found.kept == ("/etc/ssh", "/persist", "/var/lib")
    assert found.forgotten == ("/cache", "/", "/etc", "/root", "/srv", "/var/log")


@pytest.mark.parametrize("options", [("bind",), ("rbind", "x-initrd.mount")])
def test_a_place_in_memory_below_a_kept_one_is_forgotten(options: tuple[str, ...]) -> None:
    found = places(
        TMPFS,
        PERSIST,
        fs("/persist/tmp", "none", "tmpfs"),
        fs("/var/log", "/persist/tmp/log", "none", *options),
    )
    assert found.kept == ("/persist",)
    assert {"/persist/tmp", "/var/log"} <= set(found.forgotten)


def test_what_is_read_only_is_not_written_to() -> None:
    assert places(TMPFS, fs("/media", "/dev/disk/by-label/m", "ext4", "ro")).kept == ()


class Rebooting:
    """A machine that keeps what lies below some directories, and loses the rest at a reboot."""

    def __init__(self, *, keeps: tuple[str, ...], fails: str = "") -> None:
        self.keeps, self.fails = keeps, fails
        self.files: set[str] = set()
        self.failed = ""

    def run(self, command: str) -> CommandResult:
        if command.startswith("systemctl"):
            return _ended(command, text=self.failed)
        path = command.rsplit(maxsplit=1)[-1] if command.startswith("grep") else command.split()[7]
        if command.startswith("mkdir"):
            self.files.add(path)
        return _ended(command, status=int(path not in self.files))

    def power_off(self, *, orderly: bool) -> None:
        assert orderly
        self.files = {f for f in self.files if f.startswith(self.keeps)}

    def power_on(self) -> None:
        self.failed = self.fails


def _ended(command: str, *, status: int = 0, text: str = "") -> CommandResult:
    return CommandResult(
        command=command, exit_status=status, stdout=text.encode(), stderr=b"", duration_s=0.0
    )


def rebooted(machine: Rebooting) -> None:
    class Request:
        def getfixturevalue(self, _name: str) -> Rebooting:
            return machine

    check.test_only_what_is_declared_persistent_survives_a_reboot(
        Places(kept=("/persist",), forgotten=("/", "/etc")),
        cast("pytest.FixtureRequest", Request()),
        Evidence(),
    )


def test_a_host_that_keeps_and_forgets_as_declared_passes() -> None:
    rebooted(Rebooting(keeps=("/persist",)))


@pytest.mark.parametrize(
    ("machine", "told"),
    [
        (Rebooting(keeps=()), "declared persistent, and gone after a reboot: /persist"),
        (Rebooting(keeps=("/persist", "/etc")), "still there after a reboot: /etc"),
        (Rebooting(keeps=("/persist",), fails="db.service\n"), "failed only after a reboot: db.service"),
    ],
)  # fmt: skip
def test_what_is_lost_kept_or_failed_after_a_reboot_is_told(machine: Rebooting, told: str) -> None:
    with pytest.raises(AssertionError, match=told):
        rebooted(machine)
