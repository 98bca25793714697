"""What a switch leaves that a boot would not: on a real guest. Run by test_on_guest.py."""

from __future__ import annotations

from pytest_nixos import Generations, Machine, against_fresh_boot

SYSCTL = "net.ipv4.tcp_keepalive_time"


def test_a_harmless_switch_is_what_a_boot_is(
    nixos_rebooting_machine: Machine, nixos_rebooting_generations: Generations
) -> None:
    nixos_rebooting_generations.switch('{ environment.etc."x".text = "1"; }')
    assert against_fresh_boot(nixos_rebooting_machine, nixos_rebooting_generations) == ()


def test_a_sysctl_that_nobody_sets_any_more_stays_until_the_boot(
    nixos_rebooting_machine: Machine, nixos_rebooting_generations: Generations
) -> None:
    life = nixos_rebooting_generations
    life.switch(f'{{ boot.kernel.sysctl."{SYSCTL}" = 7100; }}')
    life.switch('{ environment.etc."x".text = "2"; }')
    [one] = against_fresh_boot(nixos_rebooting_machine, life)
    assert (one.aspect, one.item) == ("sysctls", SYSCTL.replace(".", "/"))
    assert (one.switched, one.booted) == ("7100", "7200")


def test_a_service_that_is_not_restarted_keeps_its_environment(
    nixos_rebooting_machine: Machine, nixos_rebooting_generations: Generations
) -> None:
    life = nixos_rebooting_generations
    for value in ("old", "new"):
        life.switch(
            f"""{{ pkgs, ... }}: {{ systemd.services.keeps = {{
              wantedBy = [ "multi-user.target" ]; restartIfChanged = false;
              environment.STATE = "{value}";
              serviceConfig.ExecStart = "${{pkgs.coreutils}}/bin/sleep infinity";
            }}; }}"""
        )
    [one] = against_fresh_boot(nixos_rebooting_machine, life)
    assert (one.item, one.switched, one.booted) == ("keeps.service STATE", "old", "new")
