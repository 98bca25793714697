"""Swap areas, zram devices and memory."""

from __future__ import annotations

from pytest_nixos.observe.base import ProbeOutput, observe
from pytest_nixos.observe.filesystems.swap import swap
from tests.unit.observe.here import here

SWAP = b"""=swaps
Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority
/dev/zram0                              partition\t503804\t\t12\t\t5
/var/my\\040swap                         file\t\t1024\t\t0\t\t-2
odd
=meminfo
MemTotal:        1007612 kB
HugePages_Total:       3
=zram zram0
disksize 515899392
comp_algorithm lzo lzo-rle lz4 [zstd]
mm_stat 4096 74 12288 0 12288 0 0 0 0
=zram zram1
disksize 0
"""


def test_swap_and_zram() -> None:
    found = swap().parse(ProbeOutput(stdout=SWAP, exit_status=0))
    area = found.area_of("zram0")
    assert area is not None
    assert (area.size_bytes, area.priority, area.is_zram) == (503804 * 1024, 5, True)
    assert [a.path for a in found.areas] == ["/dev/zram0", "/var/my swap"]
    first, second = found.zram
    assert (first.algorithm, first.disk_size_bytes, first.memory_used_bytes) == (
        "zstd",
        515899392,
        12288,
    )
    assert first.memory_limit_bytes is None
    assert second.disk_size_bytes == 0
    assert (found.memory_bytes, found.meminfo["HugePages_Total"]) == (1007612 * 1024, 3)


def test_real_memory() -> None:
    assert observe(here, swap()).memory_bytes > 1 << 26
