"""KVM: judged by running instructions, remembered for one boot."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from pytest_nixos.errors import ToolMissingError
from pytest_nixos.local.process import Completed, ProcessTimeout, SubprocessRunner
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.qemu import kvm, kvm_rom
from pytest_nixos.machine.qemu.kvm import KvmProbe, KvmVerdict, VerdictCache
from tests.support.qemu import qemu_program
from tests.support.runner import FakeRunner

SOURCE = Path(kvm.__file__).with_name("long-mode.S")
QEMU = qemu_program()
KVM_WORKS_AT_FIRST_SIGHT = kvm.device_refusal(Path("/dev/kvm")) is None


def ended(exit_status: int, stderr: bytes = b"") -> Completed:
    return Completed(argv=(), exit_status=exit_status, stdout=b"", stderr=stderr)


@pytest.fixture
def cache(tmp_path: Path) -> VerdictCache:
    return VerdictCache(tmp_path / "kvm", "boot-1")


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Path:
    """A KVM device that makes machines, whatever this machine has."""
    monkeypatch.setattr(kvm, "device_refusal", lambda _device: None)
    return Path("/dev/kvm")


@pytest.mark.skipif(not shutil.which("as"), reason="no assembler")
def test_the_rom_is_what_its_source_assembles_to(tmp_path: Path) -> None:
    for argv in (
        ["as", "-o", f"{tmp_path}/rom.o", str(SOURCE)],
        ["objcopy", "-O", "binary", f"{tmp_path}/rom.o", f"{tmp_path}/rom"],
    ):
        SubprocessRunner().run(argv, deadline=Deadline.after(60))
    assert (tmp_path / "rom").read_bytes() == kvm_rom.rom_image()


@pytest.mark.skipif(not QEMU, reason="no QEMU: neither on PATH nor of a VM (./dev test)")
def test_the_rom_runs_to_its_end_under_tcg(tmp_path: Path) -> None:
    rom = tmp_path / "rom"
    rom.write_bytes(kvm_rom.rom_image())
    assert QEMU
    argv = [word if word != "kvm" else "tcg" for word in kvm.rom_argv(QEMU, rom, "max")]
    assert SubprocessRunner().run(argv, deadline=Deadline.after(60)).exit_status == 85


def test_a_guest_that_ran_makes_kvm_usable(cache: VerdictCache, device: Path) -> None:
    runner = FakeRunner(ended(85))
    assert KvmProbe(runner, cache, device=device).probe("/q/bin/qemu-system-x86_64").usable
    argv = runner.calls[0]
    assert argv[:2] == ("sh", "-c")
    assert "/q/bin/qemu-system-x86_64" in argv
    assert argv[argv.index("-cpu") + 1] == "max"


@pytest.mark.parametrize(
    ("ending", "reason"),
    [
        (
            ended(-6, b"qemu-kvm: error: failed to set MSR 0x10a to 0x69\nAborted\n"),
            "qemu-kvm: error: failed to set MSR 0x10a to 0x69 (signal 6)",
        ),
        (ended(3), "QEMU said nothing (exit status 3)"),
        (ended(1, b"\nCould not access KVM\n"), "Could not access KVM (exit status 1)"),
        (ProcessTimeout("hung", remedy=""), "a guest with -cpu max did not run within 0.9 s"),
        (ToolMissingError("sh: no such program", remedy=""), "sh: no such program"),
    ],
)
def test_any_other_end_makes_it_unusable(
    cache: VerdictCache, device: Path, ending: Completed | Exception, reason: str
) -> None:
    verdict = KvmProbe(FakeRunner(ending), cache, device=device).probe("/q/qemu-system-x86_64")
    assert verdict == KvmVerdict(usable=False, reason=reason)


def test_a_verdict_is_found_once_per_boot_program_and_processor(
    tmp_path: Path, device: Path
) -> None:
    runner = FakeRunner(ended(85))
    first = KvmProbe(runner, VerdictCache(tmp_path, "boot-1"), device=device)
    assert [first.probe("/q/qemu-system-x86_64") for _ in range(3)][2].usable
    assert len(runner.calls) == 1
    first.probe("/q/qemu-system-x86_64", cpu="host")
    first.probe("/other/qemu-system-x86_64")
    KvmProbe(runner, VerdictCache(tmp_path, "boot-2"), device=device).probe("/q/qemu-system-x86_64")
    assert len(runner.calls) == 4


def test_a_hang_is_not_remembered_because_it_may_have_been_load(
    cache: VerdictCache, device: Path
) -> None:
    runner = FakeRunner(ProcessTimeout("hung", remedy=""))
    probe = KvmProbe(runner, cache, device=device)
    probe.probe("/q/qemu-system-x86_64")
    probe.probe("/q/qemu-system-x86_64")
    assert len(runner.calls) == 2


def test_the_cache_is_private_and_survives_damage(tmp_path: Path) -> None:
    cache = VerdictCache(tmp_path / "kvm", "b")
    cache.write("k", KvmVerdict(usable=True, reason="r"))
    assert cache.read("k") == KvmVerdict(usable=True, reason="r")
    directory = tmp_path / "kvm" / "b"
    assert directory.stat().st_mode & 0o077 == 0
    (entry,) = directory.iterdir()
    for damage in ("{", "[]", '{"usable": "no", "reason": "r"}', '{"usable": true}', "[" * 100_000):
        entry.write_text(damage)
        assert cache.read("k") is None
    entry.write_text('{"usable": true, "reason": "r"}')
    entry.chmod(0o660)
    assert cache.read("k") is None


def test_a_cache_that_cannot_be_written_costs_only_time(tmp_path: Path) -> None:
    (tmp_path / "kvm").write_text("a file, not a directory")
    cache = VerdictCache(tmp_path / "kvm", "b")
    cache.write("k", KvmVerdict(usable=True, reason="r"))
    assert cache.read("k") is None


def test_the_cache_lies_where_the_user_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    VerdictCache.of_user().write("k", KvmVerdict(usable=True, reason="r"))
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert (tmp_path / "pytest-nixos" / "kvm" / boot_id).is_dir()


def test_without_a_device_nothing_is_run(tmp_path: Path, cache: VerdictCache) -> None:
    runner = FakeRunner(ended(85))
    verdict = KvmProbe(runner, cache, device=tmp_path / "kvm").probe("/q/qemu-system-x86_64")
    assert verdict == KvmVerdict(usable=False, reason=f"{tmp_path}/kvm does not exist")
    assert runner.calls == []


def test_a_file_in_the_place_of_the_device_is_refused(tmp_path: Path) -> None:
    (tmp_path / "kvm").touch()
    assert "makes no virtual machine" in (kvm.device_refusal(tmp_path / "kvm") or "")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open anything")
def test_a_device_without_permission_is_refused(tmp_path: Path) -> None:
    (tmp_path / "kvm").touch(mode=0)
    assert "no permission" in (kvm.device_refusal(tmp_path / "kvm") or "")


@pytest.mark.skipif(
    not (KVM_WORKS_AT_FIRST_SIGHT and QEMU),
    reason="no /dev/kvm that makes virtual machines, or no QEMU",
)
def test_this_machine_is_judged_in_about_a_second(cache: VerdictCache) -> None:
    deadline = Deadline.after(1.5)
    assert QEMU
    verdict = KvmProbe(SubprocessRunner(), cache).probe(QEMU)
    assert not deadline.expired
    assert verdict.reason
