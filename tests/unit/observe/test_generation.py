"""Generations, links and boot menus."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from pytest_nixos.observe.base import ProbeOutput
from pytest_nixos.observe.boot_menu import BOOT_MENU
from pytest_nixos.observe.generation import (
    GENERATION_FACTS,
    BootMenu,
    GenerationState,
    generations,
)
from tests.unit.observe.here import here

OLD = "/nix/store/00000000000000000000000000000000-nixos-system-a-24.05"
NEW = "/nix/store/11111111111111111111111111111111-nixos-system-a-24.05"


def parse(text: str) -> GenerationState:
    return generations().parse(ProbeOutput(stdout=text.encode(), exit_status=0))


def links(*, current: str, profile: int, two: str = NEW) -> str:
    profiles = "/nix/var/nix/profiles"
    end = {1: OLD, 2: two}[profile]
    return (
        f"=roles\ncurrent={current}\nbooted={OLD}\nprofile={end}\n"
        f"=links\n{profiles}/system\tsystem-{profile}-link\t{end}\n"
        f"{profiles}/system-1-link\t{OLD}\t{OLD}\n{profiles}/system-2-link\t{two}\t{two}\n"
        f"=current-version\n24.05.1\n=cmdline\nquiet init={OLD}/init root=/dev/vda\n"
    )


def test_after_a_switch() -> None:
    state = parse(links(current=NEW, profile=2))
    assert (state.current, state.booted, state.profile) == (NEW, OLD, NEW)
    assert (state.current_generation, state.profile_generation) == (2, 2)
    assert state.generations == {1: OLD, 2: NEW}
    assert state.is_settled
    assert state.init == OLD
    assert state.current_version == "24.05.1"


def test_after_test_only_the_running_system_moved() -> None:
    state = parse(links(current=NEW, profile=1))
    assert (state.current_generation, state.profile_generation) == (2, 1)
    assert not state.is_settled


def test_of_two_equal_generations_the_profile_names_the_current_one() -> None:
    state = parse(links(current=OLD, profile=1, two=OLD))
    assert state.current_generation == 1


def test_a_machine_without_profile() -> None:
    state = parse(f"=roles\ncurrent={OLD}\n")
    assert (state.profile, state.profile_generation, state.current_generation) == ("", None, None)
    assert state.booted == ""
    assert not state.is_settled
    assert state.boot_menu is None


def boot_menu(directory: Path) -> BootMenu | None:
    """Read the boot menu below `directory` with the guest's own script."""
    menu = BOOT_MENU.replace("(/boot /efi /boot/efi)", f"({directory})")
    loader = here(f"{menu}\nboot_default").stdout_text
    return parse(f"{links(current=NEW, profile=2)}=boot-default\n{loader}").boot_menu


@pytest.mark.parametrize("entry", ["nixos-generation-1.conf", "nixos-generation-1+2.conf"])
def test_systemd_boot_names_the_default_generation(tmp_path: Path, entry: str) -> None:
    entries = tmp_path / "loader/entries"
    entries.mkdir(parents=True)
    conf = tmp_path / "loader/loader.conf"
    conf.write_text("timeout 5\ndefault nixos-generation-1.conf\n")
    (entries / entry).write_text(f"linux /x\noptions init={OLD}/init quiet\n")
    (entries / "nixos-generation-2.conf").write_text(f"options init={NEW}/init\n")
    assert boot_menu(tmp_path) == BootMenu(
        loader="systemd-boot", path=str(conf), toplevel=OLD, generation=1
    )


def test_grub_starts_its_first_entry(tmp_path: Path) -> None:
    path = tmp_path / "grub/grub.cfg"
    path.parent.mkdir()
    path.write_text(
        'set default=0\nmenuentry "NixOS - Default" {\n'
        f"  linux /boot/kernels/x-bzImage init={NEW}/init quiet\n"
        f"  linux /boot/kernels/y-bzImage init={OLD}/init quiet\n"
    )
    assert boot_menu(tmp_path) == BootMenu(
        loader="grub", path=str(path), toplevel=NEW, generation=2
    )


def test_extlinux_starts_its_first_entry(tmp_path: Path) -> None:
    path = tmp_path / "extlinux/extlinux.conf"
    path.parent.mkdir()
    path.write_text(f"DEFAULT nixos-default\nLABEL nixos-default\n  APPEND init={OLD}/init quiet\n")
    found = boot_menu(tmp_path)
    assert found is not None
    assert (found.loader, found.toplevel, found.generation) == ("extlinux", OLD, 1)


def test_a_role_without_a_system_counts_as_another_one() -> None:
    parse_systems = GENERATION_FACTS["systems"].parse
    assert parse_systems(f"current={OLD}\nbooted={OLD}\nprofile={OLD}\n") == [OLD]
    assert parse_systems(f"current={OLD}\nbooted={OLD}\n") == [OLD, "no profile system"]


_NIX_TELLS = r"""
while IFS= read -r root; do
  root=${root%%' -> '*}
  case $root in
    /proc/*|'{'*|@/profiles/*|@/gcroots/*|/run/*) ;;
    */.direnv/*|*/.local/state/nix/profiles/*|*/.local/state/home-manager/*) ;;
    *) printf '%s\n' "$root";;
  esac
done <<< "$(nix-store --gc --print-roots)"
"""


@pytest.mark.skipif(shutil.which("nix-store") is None, reason="this machine has no Nix")
def test_stray_roots_are_those_that_nix_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, state, home = tmp_path / "store", tmp_path / "state", tmp_path / "home"
    for name, place in (("NIX_STORE_DIR", store), ("NIX_STATE_DIR", state)):
        monkeypatch.setenv(name, str(place))
    monkeypatch.setenv("NIX_REMOTE", "")
    home.mkdir()
    (home / "text").write_text("kept\n")
    kept = here(f"nix-store --add {home}/text").stdout_text.strip()
    assert kept.startswith(f"{store}/"), "nix-store gave no path"
    for below in ("gcroots/auto", "gcroots/deep/er", "profiles/per-user/root"):
        (state / below).mkdir(parents=True, exist_ok=True)
    (home / ".direnv").mkdir()

    def link(at: Path, to: object) -> Path:
        at.symlink_to(str(to))
        return at

    stray = [
        link(home / "result", kept),
        link(home / "result of work", f"{kept}/inside"),
        link(home / "by a relative link", kept),
    ]
    link(state / "gcroots/auto/1", stray[0])
    link(state / "gcroots/deep/er/2", stray[1])
    link(state / "gcroots/auto/3", f"{'../' * 3}home/by a relative link")
    # Not told: what is gone, no link, no valid path, no path of the store, or known for what it is.
    link(state / "gcroots/auto/4", home / "gone")
    link(state / "gcroots/auto/5", home / "text")
    link(state / "gcroots/auto/6", link(home / "dead", store / f"{'0' * 32}-gone"))
    link(state / "gcroots/auto/7", link(home / "elsewhere", "/etc"))
    link(state / "gcroots/auto/8", link(home / ".direnv/flake", kept))
    link(state / "gcroots/auto/9", link(state / "profiles/per-user/root/channels-1-link", kept))
    link(state / "gcroots/direct", kept)
    link(state / "profiles/per-user/root/channels", "channels-1-link")

    fact = GENERATION_FACTS["stray-roots"]
    script = fact.script.replace("/nix/var/nix", str(state)).replace("/nix/store", str(store))
    before = here(f"ls -R {state}/gcroots").stdout
    done = here(script)
    assert done.exit_status == 0
    assert here(f"ls -R {state}/gcroots").stdout == before
    told = {os.path.normpath(name) for name in fact.parse(done.stdout_text)}
    by_nix = here(_NIX_TELLS.replace("@", str(state))).stdout_text.splitlines()
    assert told == set(by_nix) == {str(path) for path in stray}


@pytest.mark.parametrize(
    ("says", "status", "answer"),
    [
        ("", 0, (0, "intact\n")),
        ("path '/nix/store/x' was modified! expected hash 'a', got 'b'", 1, (0, "broken\n")),
        ("error: reading from file: Input/output error", 1, (0, "broken\n")),
        ("error: cannot connect to socket at '/nix/var/nix/daemon-socket/socket': No such file", 1, (1, "")),
    ],
)  # fmt: skip
def test_a_nix_that_does_not_answer_is_no_broken_store(
    says: str, status: int, answer: tuple[int, str], tmp_path: Path
) -> None:
    program = tmp_path / "nix-store"
    program.write_text(f"#!/bin/sh\ncat >&2 <<'END'\n{says}\nEND\nexit {status}\n")
    program.chmod(0o755)
    done = subprocess.run(
        ["bash", "-c", f"system() {{ {GENERATION_FACTS['system-path'].command}\n}}; system 2>/dev/null"],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == answer
