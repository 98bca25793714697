"""zram: the compressed swap that the host declares is there, with its algorithm, size and
priority.
"""

from __future__ import annotations

import pytest

from pytest_nixos import Evidence, HostConfig, Observations, Zram, not_applicable, observe

_MIB = 1024 * 1024
# zram-generator counts in whole MiB, and the kernel rounds a device to pages.
_TOLERANCE_BYTES = 2 * _MIB


@pytest.fixture
def declared(nixos_host_config: HostConfig) -> Zram:
    """What the host declares."""
    if nixos_host_config.zram is None:
        not_applicable("the host declares no zramSwap")
    return nixos_host_config.zram


@pytest.fixture
def state(nixos_observations: Observations) -> observe.SwapState:
    """Swap and zram devices of the running machine."""
    return nixos_observations.of(observe.swap())


@pytest.mark.nixos_control("ZRAM-001")
def test_zram_is_used_as_swap(
    declared: Zram, state: observe.SwapState, nixos_evidence: Evidence
) -> None:
    nixos_evidence.expect({"devices": declared.device_count, "used as swap": True})
    in_use = [device.name for device in state.zram if state.area_of(device.name) is not None]
    nixos_evidence.observe({"devices": [d.name for d in state.zram], "used as swap": in_use})
    assert len(in_use) == declared.device_count, (
        f"{len(in_use)} zram devices are used as swap, {declared.device_count} declared"
    )


@pytest.mark.nixos_control("ZRAM-002")
def test_zram_compresses_with_the_declared_algorithm(
    declared: Zram, state: observe.SwapState, nixos_evidence: Evidence
) -> None:
    nixos_evidence.expect(declared.algorithm)
    algorithms = nixos_evidence.observe({d.name: d.algorithm for d in _devices(state)})
    # "zstd(level=3)" and "zstd lz4 (type=idle)" name the algorithm first, zram-generator.conf(5).
    wanted = declared.algorithm.partition("(")[0].split()[0]
    wrong = {name: used for name, used in algorithms.items() if used != wanted}
    assert not wrong, f"declared {wanted}, in use: {wrong}"


@pytest.mark.nixos_control("ZRAM-003")
def test_zram_has_the_declared_size(
    declared: Zram, state: observe.SwapState, nixos_evidence: Evidence
) -> None:
    expected = _size_bytes(declared, state.memory_bytes)
    nixos_evidence.expect(
        {
            "bytes in all": expected,
            "memory_percent": declared.memory_percent,
            "memory_max_bytes": declared.memory_max_bytes,
            "memory_bytes": state.memory_bytes,
        }
    )
    total = nixos_evidence.observe(sum(device.disk_size_bytes for device in _devices(state)))
    assert abs(total - expected) <= _TOLERANCE_BYTES, (
        f"{total // _MIB} MiB, expected {expected // _MIB} MiB"
    )


@pytest.mark.nixos_control("ZRAM-004")
def test_zram_has_the_declared_priority(
    declared: Zram, state: observe.SwapState, nixos_evidence: Evidence
) -> None:
    nixos_evidence.expect(declared.priority)
    areas = {d.name: state.area_of(d.name) for d in _devices(state)}
    priorities = nixos_evidence.observe(
        {name: area.priority for name, area in areas.items() if area is not None}
    )
    assert priorities, "no zram device is used as swap"
    wrong = {name: found for name, found in priorities.items() if found != declared.priority}
    assert not wrong, f"declared {declared.priority}, in use: {wrong}"


def _devices(state: observe.SwapState) -> tuple[observe.ZramDevice, ...]:
    devices = tuple(device for device in state.zram if device.disk_size_bytes > 0)
    assert devices, "the machine has no zram device that is set up"
    return devices


def _size_bytes(declared: Zram, memory_bytes: int) -> int:
    """Compute what NixOS asks zram-generator for, nixos/modules/config/zram.nix."""
    size = memory_bytes * declared.memory_percent // 100
    if declared.memory_max_bytes is not None:
        size = min(size, declared.memory_max_bytes)
    return size
