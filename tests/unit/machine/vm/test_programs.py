"""What a VM needs beside its QEMU comes from the host's own closure: this machine may have
nothing installed.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_nixos.machine.vm.programs import find_qemu_img
from pytest_nixos.machine.vm.run_script import RunScript


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")


def program(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")
    path.chmod(0o755)
    return str(path)


def script(text: str = "", qemu: str | None = None) -> RunScript:
    return RunScript(path=Path("/s/run"), qemu_binary=qemu, cpu=None, console=None, text=text)


def test_the_program_that_the_script_itself_uses(tmp_path: Path) -> None:
    path = program(tmp_path / "q-qemu/bin/qemu-img")
    text = f'  {path} create -f raw "$temp" 1024M\nexec {tmp_path}/elsewhere/qemu-kvm -m 1'
    assert find_qemu_img(script(text, f"{tmp_path}/elsewhere/qemu-kvm")) == path


def test_the_program_beside_the_scripts_qemu(tmp_path: Path) -> None:
    path = program(tmp_path / "bin/qemu-img")
    assert find_qemu_img(script(qemu=f"{tmp_path}/bin/qemu-system-x86_64")) == path


def test_the_program_beside_what_a_link_to_qemu_leads_to(tmp_path: Path) -> None:
    path = program(tmp_path / "real/bin/qemu-img")
    program(tmp_path / "real/bin/qemu-kvm")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/qemu-kvm").symlink_to("../real/bin/qemu-kvm")
    assert find_qemu_img(script(qemu=f"{tmp_path}/bin/qemu-kvm")) == path


def test_then_this_machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "/nix/store/gone/bin/qemu-img create x\nexec /nix/store/gone/bin/qemu-kvm -m 1"
    assert find_qemu_img(script(text, "/nix/store/gone/bin/qemu-kvm")) is None
    monkeypatch.setenv("PATH", str(tmp_path))
    installed = program(tmp_path / "qemu-img")
    assert find_qemu_img(script(text)) == installed
