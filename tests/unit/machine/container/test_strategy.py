"""What a container needs of this machine is named before anything is built."""

from __future__ import annotations

import os

import pytest

from pytest_nixos.errors import MachineError, ToolMissingError
from pytest_nixos.machine.container.backend import ContainerBackend


def test_a_machine_without_nspawn_is_told_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(ToolMissingError, match="systemd-nspawn") as caught:
        ContainerBackend().preflight("web")
    assert "apt install systemd-container" in caught.value.remedy


def test_without_root_the_other_way_is_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(MachineError, match="web: starting a container needs root") as caught:
        ContainerBackend().preflight("web")
    assert "--nixos-backend vm" in caught.value.remedy
