"""Run scripts read, and their arguments and environment built."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_nixos.errors import MachineError
from pytest_nixos.local.pace import Pace
from pytest_nixos.local.process import SubprocessRunner
from pytest_nixos.machine.base import SecretArchive
from pytest_nixos.machine.vm.argv import (
    Acceleration,
    accelerator_argv,
    check_run_dir,
    kernel_params,
    machine_argv,
    monitor_argv,
    qemu_options_name,
    run_environment,
    secrets_argv,
)
from pytest_nixos.machine.vm.run_script import (
    QemuVersion,
    RunScript,
    find_run_script,
    parse_run_script,
    qemu_version,
    serial_console,
)

RUN_DIR = Path("/tmp/n")
NEW, OLD = QemuVersion(major=8, minor=2), QemuVersion(major=7, minor=2)

# In the form that nixpkgs' qemu-vm.nix gives it.
SCRIPT = """#! /nix/store/b-bash/bin/bash
set -e
/nix/store/q-qemu/bin/qemu-img create -f qcow2 "$NIX_DISK_IMAGE"
cd "$TMPDIR"
# Start QEMU.
exec /nix/store/q-qemu-8.2.4/bin/qemu-kvm -cpu max \\
    -name llm-host \\
    -m 8192 \\
    -append "$(cat /nix/store/t/kernel-params) init=/nix/store/t/init {consoles} $QEMU_KERNEL_PARAMS" \\
    {options} \\
    $QEMU_OPTS \\
    "$@"
"""


def script(*, cpu: str | None = "max", console: str | None = "ttyS0") -> RunScript:
    return RunScript(path=Path("/run"), qemu_binary="/q", cpu=cpu, console=console)


def write_script(directory: Path, text: str, name: str = "run-llm-host-vm") -> Path:
    path = directory / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_a_run_script_tells_its_qemu_processor_and_console(tmp_path: Path) -> None:
    text = SCRIPT.replace("{consoles}", "console=ttyS0 console=tty0").replace(
        "{options}", "-nographic"
    )
    assert parse_run_script(write_script(tmp_path, text)) == RunScript(
        path=tmp_path / "bin/run-llm-host-vm",
        qemu_binary="/nix/store/q-qemu-8.2.4/bin/qemu-kvm",
        cpu="max",
        console="tty0",
    )


def test_the_hosts_own_processor_comes_last(tmp_path: Path) -> None:
    text = SCRIPT.replace("{options}", "-cpu host,+vmx")
    assert parse_run_script(write_script(tmp_path, text)).cpu == "host"


@pytest.mark.parametrize(
    ("line", "binary"),
    [
        (
            "exec /s/bin/qemu-system-aarch64 -machine virt,accel=kvm:tcg",
            "/s/bin/qemu-system-aarch64",
        ),
        ('exec "/s/bin/qemu-system-x86_64" -cpu max', "/s/bin/qemu-system-x86_64"),
        ("exec env LD=1 something", None),
        ("# exec later\n/s/bin/qemu-img create", None),
        ("", None),
    ],
)
def test_the_qemu_program_is_found_or_unknown(
    tmp_path: Path, line: str, binary: str | None
) -> None:
    assert parse_run_script(write_script(tmp_path, line)).qemu_binary == binary


def test_a_script_that_cannot_be_read_gives_unknowns(tmp_path: Path) -> None:
    assert parse_run_script(tmp_path / "absent").qemu_binary is None
    path = write_script(tmp_path, "")
    path.write_bytes(b"\x7fELF\xff\xfe\0")
    assert parse_run_script(path).cpu is None


def test_the_run_script_is_found_by_name_or_alone(tmp_path: Path) -> None:
    path = write_script(tmp_path, "")
    assert find_run_script(tmp_path, "bin/run-llm-host-vm") == path
    assert find_run_script(tmp_path, "") == path
    write_script(tmp_path, "", "run-other-vm")
    with pytest.raises(MachineError, match="found run-llm-host-vm, run-other-vm"):
        find_run_script(tmp_path, "")


def test_no_run_script_is_told_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="found none"):
        find_run_script(tmp_path, "")
    with pytest.raises(MachineError, match=r"build config\.system\.build\.vm"):
        find_run_script(tmp_path, "bin/run-gone-vm")


def test_the_version_is_asked_of_the_program(tmp_path: Path) -> None:
    qemu = write_script(
        tmp_path, "#!/bin/sh\necho 'QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg)'\n", "qemu"
    )
    assert qemu_version(SubprocessRunner(), str(qemu)) == OLD
    qemu.write_text("#!/bin/sh\necho nonsense\n")
    assert qemu_version(SubprocessRunner(), str(qemu)) is None
    assert qemu_version(SubprocessRunner(), str(tmp_path / "absent")) is None


@pytest.mark.parametrize(
    ("system", "port"),
    [("x86_64-linux", "ttyS0"), ("aarch64-linux", "ttyAMA0"), ("riscv64-linux", "ttyS0")],
)
def test_the_serial_port_depends_on_the_machine(system: str, port: str) -> None:
    assert serial_console(system) == port


@pytest.mark.parametrize(
    ("acceleration", "cpu", "version", "user_cpu", "argv"),
    [
        (Acceleration.KVM, "max", OLD, False, ("-machine", "accel=kvm")),
        (Acceleration.TCG, "max", NEW, False, ("-machine", "accel=tcg")),
        (Acceleration.TCG, "max", None, False, ("-machine", "accel=tcg")),
        (Acceleration.TCG, "max", OLD, False, ("-machine", "accel=tcg", "-cpu", "max,-cx16")),
        (Acceleration.TCG, None, OLD, False, ("-machine", "accel=tcg", "-cpu", "max,-cx16")),
        (Acceleration.TCG, "max", OLD, True, ("-machine", "accel=tcg")),
        (Acceleration.TCG, "qemu64", OLD, False, ("-machine", "accel=tcg")),
        (Acceleration.TCG, "host", NEW, False, ("-machine", "accel=tcg", "-cpu", "max")),
        (Acceleration.TCG, "host", OLD, False, ("-machine", "accel=tcg", "-cpu", "max,-cx16")),
    ],
)
def test_the_accelerator_and_what_it_needs(
    acceleration: Acceleration,
    cpu: str | None,
    version: QemuVersion | None,
    user_cpu: bool,
    argv: tuple[str, ...],
) -> None:
    assert accelerator_argv(acceleration, script(cpu=cpu), version, user_cpu=user_cpu) == argv


def test_memory_cores_and_a_reboot_that_ends_qemu() -> None:
    assert machine_argv(memory_mib=None, cores=None) == ("-nographic", "-no-reboot")
    assert machine_argv(memory_mib=2048, cores=4) == (
        *("-m", "2048"),
        *("-smp", "4"),
        "-nographic",
        "-no-reboot",
    )


def test_secrets_travel_as_a_file_that_root_alone_reads() -> None:
    archive = SecretArchive(path=RUN_DIR / "secrets.tar", digest="d", may_be_saved=True)
    assert secrets_argv(None) == ()
    assert secrets_argv(archive) == (
        "-fw_cfg",
        "name=opt/org.pytest-nixos/secrets,file=/tmp/n/secrets.tar",
    )


def test_the_monitor_listens_without_waiting() -> None:
    assert monitor_argv(RUN_DIR) == ("-qmp", "unix:/tmp/n/qmp.sock,server=on,wait=off")


def test_a_run_writes_only_below_its_own_directory() -> None:
    env = run_environment(
        RUN_DIR, script(), serial="ttyS0", restrict_network=False, inherited={"PATH": "/bin"}
    )
    assert env == {
        "PATH": "/bin",
        "NIX_DISK_IMAGE": "/tmp/n/disk.qcow2",
        "TMPDIR": "/tmp/n/tmp",
        "USE_TMPDIR": "1",
        "SHARED_DIR": "/tmp/n/shared",
        "NIX_EFI_VARS": "/tmp/n/efi-vars.fd",
        "NIX_SWTPM_DIR": "/tmp/n/swtpm",
        "QEMU_NET_OPTS": "",
        "QEMU_KERNEL_PARAMS": "",
    }


def test_what_the_user_set_stays_and_is_added_to() -> None:
    env = run_environment(
        RUN_DIR,
        script(console="tty0"),
        serial="ttyS0",
        restrict_network=True,
        inherited={
            "QEMU_OPTS": "-m 512",
            "QEMU_NET_OPTS": "hostfwd=tcp::2222-:22",
            "QEMU_KERNEL_PARAMS": "quiet",
            "NIX_DISK_IMAGE": "/home/me/disk.qcow2",
        },
    )
    assert env["QEMU_OPTS"] == "-m 512"
    assert env["QEMU_NET_OPTS"] == "hostfwd=tcp::2222-:22,restrict=on"
    assert env["QEMU_KERNEL_PARAMS"] == "quiet console=ttyS0"
    assert env["NIX_DISK_IMAGE"] == "/tmp/n/disk.qcow2"


@pytest.mark.parametrize(
    ("console", "params", "expected"),
    [
        ("ttyS0", "", ""),
        ("tty0", "", "console=ttyS0"),
        (None, "", "console=ttyS0"),
        ("tty0", "console=hvc0", "console=hvc0"),
    ],
)
def test_the_serial_console_is_asked_for_only_where_needed(
    console: str | None, params: str, expected: str
) -> None:
    env = run_environment(
        RUN_DIR,
        script(console=console),
        serial="ttyS0",
        restrict_network=False,
        inherited={"QEMU_KERNEL_PARAMS": params},
    )
    assert env["QEMU_KERNEL_PARAMS"] == expected


def test_a_long_run_directory_is_refused() -> None:
    check_run_dir(Path("/" + "d" * 80))
    with pytest.raises(MachineError, match="at most 107 fit"):
        check_run_dir(Path("/" + "d" * 90))
    with pytest.raises(MachineError, match="at most 107 fit"):
        check_run_dir(Path("/" + "é" * 45))


def test_a_run_directory_with_a_comma_is_refused() -> None:
    with pytest.raises(MachineError, match="comma"):
        check_run_dir(Path("/tmp/a,b"))


def test_qemu_options_are_words() -> None:
    assert qemu_options_name("-cpu host -m 4", "-cpu")
    assert not qemu_options_name("-name x-cpu", "-cpu")


@pytest.mark.parametrize(
    ("emulated", "factor", "boot_timeout_s", "limit_s"),
    [
        (True, 1, 600, 180),
        (True, 4, 2400, 720),
        (
            True,
            4,
            600,
            300,
        ),  # below the boot's own limit: a device that never comes is systemd's to tell
        (True, 1, 60, 90),  # never less than without us
        (False, 2, 1200, 360),
    ],
)
def test_a_slow_guest_gets_time_for_its_devices(
    emulated: bool, factor: float, boot_timeout_s: float, limit_s: int
) -> None:
    added = kernel_params(
        emulated=emulated, pace=Pace(factor=factor), boot_timeout_s=boot_timeout_s
    )
    assert added[-2:] == (
        f"systemd.default_device_timeout_sec={limit_s}",
        f"systemd.default_timeout_start_sec={limit_s}",
    )
    assert ("no_timer_check" in added) is emulated
    env = run_environment(
        RUN_DIR,
        script(),
        serial="ttyS0",
        restrict_network=False,
        inherited={"QEMU_KERNEL_PARAMS": "mine"},
        added_kernel_params=added,
    )
    assert env["QEMU_KERNEL_PARAMS"] == " ".join(("mine", *added))


def test_a_fast_guest_is_told_nothing() -> None:
    assert kernel_params(emulated=False, pace=Pace(), boot_timeout_s=600) == ()
