"""Mounts for which a boot ended in emergency mode."""

from __future__ import annotations

import pytest

from checks.boot.mounts import LostMount, lost_mounts, remedy_of_lost
from pytest_nixos.nix.config.declared import FileSystem
from tests.unit.standards.samples import host_config

HOST = host_config(
    file_systems={
        path: FileSystem(mount_point=path, device=device, fs_type=kind, options=options)
        for path, device, kind, options in (
            ("/", "/dev/vda", "ext4", ()),
            ("/scratch", "tmpfs", "tmpfs", ("sizee=1G",)),
            ("/data", "/dev/disk/by-label/data", "ext4", ()),
        )
    }
)


@pytest.mark.parametrize(
    ("lines", "lost"),
    [
        (
            [
                "[\x1b[0;1;31mFAILED\x1b[0m] Failed to mount scratch.mount - /scratch.",
                "[    4.1] it mount[70]: mount: /scratch: fsconfig() failed: tmpfs: Unknown parameter 'sizee'.",
                "[DEPEND] Dependency failed for local-fs.target - Local File Systems.",
            ],
            (LostMount("/scratch", "fsconfig() failed: tmpfs: Unknown parameter 'sizee'."),),
        ),
        (["[FAILED] Failed to mount /scratch."], (LostMount("/scratch", ""),)),
        (
            [
                "[ TIME ] Timed out waiting for device /dev/disk/by-label/data.",
                "[DEPEND] Dependency failed for /data.",
                "[DEPEND] Dependency failed for Local File Systems.",
            ],
            (LostMount("/data", ""),),
        ),
        (["[FAILED] Failed to mount /elsewhere."], ()),
        (["[FAILED] Failed to start app.service."], ()),
    ],
)
def test_what_was_not_mounted(lines: list[str], lost: tuple[LostMount, ...]) -> None:
    assert lost_mounts(lines, HOST) == lost


def test_the_remedy_names_what_is_declared() -> None:
    text = remedy_of_lost([LostMount("/scratch", "")], HOST)
    assert "options (sizee=1G)" in text
    assert text.endswith('fileSystems."/scratch".options = [ "nofail" ];')
