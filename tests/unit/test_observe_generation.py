"""Generations, links and boot menus."""

from __future__ import annotations

from pytest_nixos.observe.base import ProbeOutput
from pytest_nixos.observe.boot_menu import SEPARATOR
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


def test_the_boot_menus_default_is_known_by_its_toplevel() -> None:
    conf = "/boot/loader/loader.conf"
    for entry, toplevel, number in (
        ("nixos-generation-1.conf", OLD, 1),
        ("nixos-62c2ed.conf", NEW, 2),
        ("nixos-62c2ed.conf", "/nix/store/gone", None),
        ("", "", None),
    ):
        menu = f"=boot-default\n{SEPARATOR.join(('systemd-boot', conf, entry, toplevel))}\n"
        found = parse(links(current=NEW, profile=2) + menu).boot_menu
        assert found is not None
        assert (found.loader, found.generation, found.toplevel) == (
            "systemd-boot",
            number,
            toplevel,
        )


def test_of_two_generations_of_one_system_the_entrys_name_tells_which() -> None:
    menu = SEPARATOR.join(("systemd-boot", "x", "nixos-generation-1.conf", OLD))
    found = parse(links(current=OLD, profile=2, two=OLD) + f"=boot-default\n{menu}\n").boot_menu
    assert found is not None
    assert found.generation == 1
