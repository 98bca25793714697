"""Generations, links and boot menus."""

from __future__ import annotations

from pytest_nixos.observe.base import ProbeOutput
from pytest_nixos.observe.generation import GenerationState, generations

OLD = "/nix/store/00000000000000000000000000000000-nixos-system-a-24.05"
NEW = "/nix/store/11111111111111111111111111111111-nixos-system-a-24.05"


def parse(text: str) -> GenerationState:
    return generations().parse(ProbeOutput(stdout=text.encode(), exit_status=0))


def links(*, current: str, profile: int, two: str = NEW) -> str:
    profiles = "/nix/var/nix/profiles"
    end = {1: OLD, 2: two}[profile]
    return (
        f"=links\n/run/current-system\t{current}\t{current}\n/run/booted-system\t{OLD}\t{OLD}\n"
        f"{profiles}/system\tsystem-{profile}-link\t{end}\n"
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
    state = parse(f"=links\n/run/current-system\t{OLD}\t{OLD}\n")
    assert (state.profile, state.profile_generation, state.current_generation) == ("", None, None)
    assert state.booted == ""
    assert not state.is_settled
    assert state.boot_menu is None


def test_systemd_boot_names_the_default_generation() -> None:
    menu = "=systemd-boot /boot/loader/loader.conf\ntimeout 5\ndefault nixos-generation-1.conf\n"
    found = parse(links(current=NEW, profile=2) + menu).boot_menu
    assert found is not None
    assert (found.loader, found.generation, found.toplevel) == ("systemd-boot", 1, OLD)


def test_grub_starts_its_first_entry() -> None:
    menu = (
        '=grub /boot/grub/grub.cfg\nset default=0\nmenuentry "NixOS - Default" {\n'
        f"  linux /boot/kernels/x-bzImage init={NEW}/init quiet\n"
        f"  linux /boot/kernels/y-bzImage init={OLD}/init quiet\n"
    )
    found = parse(links(current=NEW, profile=2) + menu).boot_menu
    assert found is not None
    assert (found.generation, found.toplevel) == (2, NEW)
