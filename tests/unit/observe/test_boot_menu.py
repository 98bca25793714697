"""Boot menus as nixpkgs' releases write them, read by the very bash that a guest runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_nixos.observe.boot_menu import BOOT_MENU, SEPARATOR

OLD = "/nix/store/00000000000000000000000000000000-nixos-system-a-26.11"
NEW = "/nix/store/11111111111111111111111111111111-nixos-system-a-26.11"


class Esp:
    """A guest's boot partitions."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def loader(self, *lines: str, place: str = "boot") -> None:
        path = self.root / place / "loader/loader.conf"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{line}\n" for line in lines))

    def entry(self, name: str, toplevel: str, number: int, *, place: str = "boot") -> None:
        path = self.root / place / "loader/entries" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            f"title NixOS\nsort-key nixos\nversion Generation {number} NixOS 26.11, built on 2026-11-28\n"
            f"linux /EFI/nixos/x.efi\ninitrd /EFI/nixos/y.efi\noptions init={toplevel}/init root=fstab\n"
        )

    def ask(self, command: str) -> str:
        text = BOOT_MENU.replace("(/boot /efi /boot/efi)", f"({self.root}/boot {self.root}/efi)")
        done = subprocess.run(
            ["bash", "-uc", f"{text}\n{command}"], capture_output=True, check=True, text=True
        )
        assert done.stderr == ""
        return done.stdout.strip("\n")

    @property
    def default(self) -> tuple[str, str]:
        """Entry and toplevel."""
        fields = self.ask("boot_default").split(SEPARATOR)
        assert len(fields) == 4
        return fields[2], fields[3]


@pytest.fixture
def esp(tmp_path: Path) -> Esp:
    return Esp(tmp_path)


def test_entries_by_number(esp: Esp) -> None:
    esp.loader("timeout 5", "default nixos-generation-1.conf", "console-mode keep")
    esp.entry("nixos-generation-1.conf", OLD, 1)
    esp.entry("nixos-generation-2.conf", NEW, 2)
    assert esp.default == ("nixos-generation-1.conf", OLD)
    assert esp.ask(f"boot_entry_of {NEW}") == "nixos-generation-2.conf"


def test_entries_by_hash(esp: Esp) -> None:
    esp.loader("default nixos-aa62c2.conf")
    esp.entry("nixos-aa62c2.conf", OLD, 1)
    esp.entry("nixos-00f3b1.conf", NEW, 2)
    assert esp.default == ("nixos-aa62c2.conf", OLD)
    assert esp.ask(f"boot_entry_of {NEW}") == "nixos-00f3b1.conf"
    assert esp.ask("boot_entry_of /nix/store/gone") == ""


def test_counted_boots_prefer_the_new_entry(esp: Esp) -> None:
    esp.loader("preferred nixos-62c2ed.conf", "default nixos-*")
    esp.entry("nixos-62c2ed+3.conf", NEW, 2)
    esp.entry("nixos-ff0000.conf", OLD, 1)
    assert esp.default == ("nixos-62c2ed.conf", NEW)
    assert esp.ask(f"boot_entry_of {NEW}") == "nixos-62c2ed.conf"


def test_an_entry_without_tries_left_is_not_preferred(esp: Esp) -> None:
    esp.loader("preferred nixos-62c2ed.conf", "default nixos-*")
    esp.entry("nixos-62c2ed+0-3.conf", NEW, 12)
    esp.entry("nixos-aaaaaa.conf", OLD, 9)
    esp.entry("nixos-bbbbbb.conf", "/nix/store/ten", 10)
    # The newest of those that a pattern names, by version, not by name; what gave up comes last.
    assert esp.default == ("nixos-bbbbbb.conf", "/nix/store/ten")


def test_a_pattern_that_names_nothing_leaves_the_first_of_the_menu(esp: Esp) -> None:
    esp.loader("default gone.conf")
    esp.entry("nixos-generation-9.conf", OLD, 9)
    esp.entry("nixos-generation-10.conf", NEW, 10)
    assert esp.default == ("nixos-generation-10.conf", NEW)


def test_what_the_firmware_remembers_is_unknown(esp: Esp) -> None:
    esp.loader("default @saved")
    esp.entry("nixos-generation-9.conf", OLD, 9)
    assert esp.default == ("", "")


def test_entries_may_lie_on_another_partition_than_the_loader(esp: Esp) -> None:
    esp.loader("default nixos-generation-1.conf", place="efi")
    esp.entry("nixos-generation-1.conf", OLD, 1, place="boot")
    assert esp.default == ("nixos-generation-1.conf", OLD)


def test_no_menu_is_nothing(esp: Esp) -> None:
    assert esp.ask("boot_default") == ""
    esp.loader("default x")
    assert esp.default == ("", "")


def test_grub_and_extlinux_start_their_first_entry(esp: Esp) -> None:
    (esp.root / "boot/extlinux").mkdir(parents=True)
    (esp.root / "boot/extlinux/extlinux.conf").write_text(f"  APPEND init={OLD}/init quiet\n")
    assert esp.default == ("", OLD)
    (esp.root / "boot/grub").mkdir(parents=True)
    (esp.root / "boot/grub/grub.cfg").write_text(
        f"  linux /x init={NEW}/init quiet\n  linux /y init={OLD}/init\n"
    )
    assert esp.default == ("", NEW)


INSTALLER = (
    Path(__file__).parents[3]
    / "example-flake/offline-nixpkgs/nixos/scripts/install-systemd-boot.py"
)


@pytest.mark.parametrize("tries", [None, 3])
def test_what_the_stand_in_installs_is_read_back(
    esp: Esp, tmp_path: Path, tries: int | None
) -> None:
    """By number as nixpkgs up to 26.05, by hash and counted as 26.11."""
    systems = {}
    profiles = tmp_path / "nix/var/nix/profiles"
    profiles.mkdir(parents=True)
    for number in (1, 2, 10):
        system = tmp_path / f"nix/store/{number}-nixos-system"
        system.mkdir(parents=True)
        for name in ("kernel", "initrd", "kernel-params", "nixos-version"):
            (system / name).write_text(f"{name} {number}")
        (profiles / f"system-{number}-link").symlink_to(system)
        systems[number] = str(system)
    settings = tmp_path / "settings.json"
    (tmp_path / "loader.efi").touch()
    settings.write_text(
        json.dumps(
            {
                "esp": "/boot",
                "loader": str(tmp_path / "loader.efi"),
                "timeout": 5,
                "editor": False,
                "console_mode": "keep",
                "limit": None,
                "tries": tries,
                "distro": "NixOS",
            }
        )
    )
    for chosen in (10, 2):
        subprocess.run(
            [sys.executable, str(INSTALLER), str(settings), systems[chosen], str(tmp_path)],
            check=True,
        )
        entry, toplevel = esp.default
        assert toplevel == systems[chosen]
        assert entry.startswith("nixos-generation-") is (tries is None)
    entries = {number: esp.ask(f"boot_entry_of {path}") for number, path in systems.items()}
    assert len(set(entries.values())) == 3
    if tries is not None:
        # The boots of the preferred one were counted down: the newest that is left is next.
        good = tmp_path / "boot/loader/entries" / entries[2].replace(".conf", "+3.conf")
        good.rename(good.with_name(good.name.replace("+3", "+0-3")))
        assert esp.default[1] == systems[10]
