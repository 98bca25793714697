"""What UNIT-007 advises for file systems and swap areas that are not there."""

from __future__ import annotations

from checks.units.areas import idle_swap, remedy_of_missing


def test_a_swap_file_is_told_apart_from_the_devices() -> None:
    label = "/dev/disk/by-label/swap"
    assert idle_swap(["/var/swap", label], ["/dev/vda2"]) == ["/var/swap"]
    assert idle_swap(["/var/swap", label], ["/var/swap"]) == [label]
    assert idle_swap(["/var/swap", label], []) == ["/var/swap", label]
    assert idle_swap(["/dev/vda2", label], ["/dev/vda2"]) == [label]


def test_a_swap_file_gets_a_size_and_a_file_system_its_device() -> None:
    file = remedy_of_missing([], ["/var/swap"])
    assert '{ device = "/var/swap"; size = 4096; }' in file
    assert "fileSystems" not in file
    device = remedy_of_missing([], ["/dev/disk/by-label/swap"])
    assert "mkswap /dev/disk/by-label/swap" in device and "size =" not in device
    mounts = remedy_of_missing(["/data", "/srv"], [])
    assert mounts.count("lib.mkForce") == 2 and "swap" not in mounts
