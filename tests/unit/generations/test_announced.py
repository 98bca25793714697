"""What switch-to-configuration announces, in the words of its Perl and of its Rust program."""

from __future__ import annotations

import pytest

from pytest_nixos.generations import Announced

# As recorded from the Perl program of a real 24.05 host.
PERL = """\
updating GRUB 2 menu...
stopping the following units: gone.service, systemd-sysctl.service
NOT restarting the following changed units: display-manager.service, getty@tty1.service
activating the configuration...
setting up /etc...
removing obsolete symlink \u2018/etc/generation\u2019...
reloading user units for me...
restarting sysinit-reactivation.target
reloading the following units: dbus.service, firewall.service
restarting the following units: nats.service
starting the following units: systemd-sysctl.service
the following new units were started: fresh.service, systemd-coredump.socket
warning: the following units failed: broken.service

\u00d7 broken.service - Broken
     Loaded: loaded (/etc/systemd/system/broken.service; enabled)
"""
# The Rust program: the same lines, sorted, and user units beside them.
RUST = """\
stopping the following units: gone.service
NOT restarting the following changed units: getty@tty1.service
activating the configuration...
restarting systemd...
stopping the following user units: pulse.service
restarting the following user units: nixos-activation.service
restarting sysinit-reactivation.target
starting the following units: nats.service
Failed to start broken.service
the following new units were started: fresh.service
warning: the following units failed: broken.service
See systemctl status broken.service for details.
"""
DRY = """\
would stop the following units: gone.service
would NOT stop the following changed units: getty@tty1.service
would activate the configuration...
would restart systemd
would reload the following units: dbus.service
would restart the following units: nats.service
would start the following units: gone.service, other.service
would stop swap device: /dev/sda2
"""


def test_perl_output() -> None:
    assert Announced.parse(PERL) == Announced(
        stopped=("gone.service", "systemd-sysctl.service"),
        left=("display-manager.service", "getty@tty1.service"),
        reloaded=("dbus.service", "firewall.service"),
        restarted=("nats.service",),
        started=("systemd-sysctl.service",),
        appeared=("fresh.service", "systemd-coredump.socket"),
        failed=("broken.service",),
    )


def test_rust_output_without_its_user_units() -> None:
    assert Announced.parse(RUST) == Announced(
        stopped=("gone.service",),
        left=("getty@tty1.service",),
        started=("nats.service",),
        appeared=("fresh.service",),
        failed=("broken.service",),
        systemd=True,
    )


def test_dry_output_means_the_same_units() -> None:
    dry = Announced.parse(DRY)
    assert dry == Announced(
        stopped=("gone.service",),
        left=("getty@tty1.service",),
        reloaded=("dbus.service",),
        restarted=("nats.service",),
        started=("gone.service", "other.service"),
        systemd=True,
    )
    assert dry.touched == {"gone.service", "dbus.service", "nats.service", "other.service"}


@pytest.mark.parametrize("text", ["", "nonsense", "the following units: ", "\x00: \n\n"])
def test_odd_output_announces_nothing(text: str) -> None:
    assert Announced.parse(text) == Announced()
