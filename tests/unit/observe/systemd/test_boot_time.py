"""Boot times are those that systemd-analyze gives for the same properties."""

from __future__ import annotations

from pytest_nixos.observe import boot_time
from pytest_nixos.observe.base import ProbeOutput
from pytest_nixos.observe.systemd.boot_time import BootTime

UNITS = """
=units
Id=multi-user.target
After=sshd.service getty.target network.target
InactiveExitTimestampMonotonic=29000000
ActiveEnterTimestampMonotonic=29000000

Id=sshd.service
After=network.target
InactiveExitTimestampMonotonic=21000000
ActiveEnterTimestampMonotonic=28900000

Id=network.target
After=dhcpcd.service
InactiveExitTimestampMonotonic=20900000
ActiveEnterTimestampMonotonic=20900000

Id=dhcpcd.service
After=
InactiveExitTimestampMonotonic=14000000
ActiveEnterTimestampMonotonic=15500000

Id=getty.target
After=
InactiveExitTimestampMonotonic=20000000
ActiveEnterTimestampMonotonic=20000000

Id=late.service
After=multi-user.target
InactiveExitTimestampMonotonic=40000000
ActiveEnterTimestampMonotonic=90000000

Id=other.timer
After=
InactiveExitTimestampMonotonic=13000000
ActiveEnterTimestampMonotonic=28000000

Id=failed.service
After=
InactiveExitTimestampMonotonic=16000000
ActiveEnterTimestampMonotonic=0

=target
Id=multi-user.target
"""
MANAGER = """
=manager
FirmwareTimestampMonotonic={firmware}
LoaderTimestampMonotonic={loader}
KernelTimestampMonotonic=0
InitRDTimestampMonotonic=2000000
UserspaceTimestampMonotonic=12000000
FinishTimestampMonotonic={finish}
"""


def parsed(
    *, virtual: str = "none\nkvm\n", firmware: int = 0, loader: int = 0, finish: int = 30000000
) -> BootTime | None:
    manager = MANAGER.format(firmware=firmware, loader=loader, finish=finish)
    text = f"=virtualisation\n{virtual}{manager}{UNITS}"
    return boot_time().parse(ProbeOutput(stdout=text.encode(), exit_status=0))


def known(boot: BootTime | None) -> BootTime:
    assert boot is not None
    return boot


def test_phases_follow_one_another() -> None:
    boot = known(parsed())
    assert boot.phases_s == {"kernel": 2.0, "initrd": 10.0, "userspace": 18.0}
    assert boot.total_s == 30.0
    assert not boot.emulated


def test_firmware_and_loader_count_where_they_are_known() -> None:
    boot = known(parsed(firmware=5000000, loader=2000000))
    assert list(boot.phases_s)[:2] == ["firmware", "loader"]
    assert boot.phases_s["firmware"] == 3.0
    assert boot.phases_s["loader"] == 2.0
    assert boot.total_s == 35.0


def test_a_container_has_userspace_only() -> None:
    assert known(parsed(virtual="systemd-nspawn\nnone\n")).phases_s == {"userspace": 18.0}


def test_an_emulated_processor_is_told() -> None:
    assert known(parsed(virtual="none\nqemu\n")).emulated


def test_the_slowest_come_first_and_what_started_after_the_boot_not_at_all() -> None:
    names = [unit.name for unit in known(parsed()).slowest]
    assert names[:2] == ["sshd.service", "dhcpcd.service"]
    assert "late.service" not in names
    assert "failed.service" not in names


def test_the_chain_leads_from_the_target_to_the_first_unit() -> None:
    chain = known(parsed()).critical_chain
    assert [unit.name for unit in chain] == [
        "multi-user.target",
        "sshd.service",
        "network.target",
        "dhcpcd.service",
    ]
    assert chain[1].took_s == 7.9


def test_an_unfinished_boot_has_no_time() -> None:
    assert parsed(finish=0) is None


def test_odd_output_is_no_boot_time() -> None:
    for text in (b"", b"\n\n", b"none\nkvm\n\nFinishTimestampMonotonic=1\n", b"\xff\n\n\xff=\xff"):
        assert boot_time().parse(ProbeOutput(stdout=text, exit_status=1)) is None
