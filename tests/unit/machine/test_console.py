"""The console: lines, phases and troubles read out of what real guests print."""

from __future__ import annotations

import threading
import time

import pytest

from pytest_nixos.machine.boot.events import BootEvent, BootEventKind
from pytest_nixos.machine.boot.news import BootNews
from pytest_nixos.machine.console import (
    BootPhase,
    Console,
    StartJob,
    Trouble,
    classify,
    start_job,
)
from pytest_nixos.machine.serial_process import LineReader


@pytest.mark.parametrize(
    ("line", "phase"),
    [
        ("[    0.000000] Linux version 6.6.32 (nixbld@localhost)", BootPhase.KERNEL),
        ("<<< NixOS Stage 1 >>>", BootPhase.STAGE_1),
        ("Welcome to NixOS 24.05 (Uakari) (Initrd)!", BootPhase.STAGE_1),
        ("running udev...", BootPhase.STAGE_1),
        ("<<< NixOS Stage 2 >>>", BootPhase.STAGE_2),
        (
            "booting system configuration /nix/store/x-nixos-system-llm-host-24.05",
            BootPhase.STAGE_2,
        ),
        ("Welcome to NixOS 24.05 (Uakari)!", BootPhase.SYSTEMD),
        ("[  OK  ] Reached target Multi-User System.", BootPhase.SYSTEMD),
        ("llm-host login:", BootPhase.LOGIN),
        ("llm-host login: root (automatic login)", BootPhase.LOGIN),
        ("Last login: Sat Nov 21 01:00:00 UTC 2026 on ttyS0", None),
        # Some systemd runs: that of the initrd, unless a later one has greeted.
        ("[  OK  ] Started Serial Getty on ttyS0.", BootPhase.STAGE_1),
        ("You are in emergency mode. After logging in, type", BootPhase.STAGE_1),
        ("Cannot open access to console, the root account is locked.", BootPhase.STAGE_1),
        ("", None),
    ],
)
def test_a_line_proves_a_phase(line: str, phase: BootPhase | None) -> None:
    assert classify(line)[0] == phase


FATAL = [
    (
        "[    1.2] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100",
        "kernel panic",
    ),
    (
        "Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)",
        "kernel panic",
    ),
    ("An error occurred in stage 1 of the boot process, which must mount the", "stage 1 failed"),
    ("stage 2 init script (/mnt-root//nix/store/x/init) not found", "stage 1 failed"),
    ("pytest-nixos: the declared disks could not be made", "own disks failed"),
    (
        'You are in emergency mode. After logging in, type "journalctl -xb" to view',
        "emergency mode",
    ),
    (
        'Welcome to emergency mode! After logging in, type "journalctl -xb" to view',
        "emergency mode",
    ),
    ("[  OK  ] Reached target Emergency Mode.", "emergency mode"),
    ("[  OK  ] Reached target emergency.target - Emergency Mode.", "emergency mode"),
    ("You are in rescue mode. After logging in, type", "rescue mode"),
    ("Press Enter for maintenance", "emergency mode"),
    ("Press Enter for system maintenance", "emergency mode"),
    ("Give root password for maintenance", "emergency mode"),
    ("Enter root password for system maintenance", "emergency mode"),
    ("Cannot open access to console, the root account is locked.", "emergency mode"),
    ("fsck finished, rebooting...", "file system check failed"),
    (
        "/dev/vda has unrepaired errors, please fix them manually.",
        "file system check failed",
    ),
    (
        "[    9.1] Out of memory: Killed process 1 (systemd) total-vm:167000kB",
        "out of memory",
    ),
    ("[    2.0] systemd[1]: Caught <SEGV>, dumped core as pid 77.", "systemd crashed"),
    ("[!!!!!!] Failed to mount API filesystems.", "systemd crashed"),
    ("systemd[1]: Freezing execution.", "systemd crashed"),
]


@pytest.mark.parametrize(("line", "kind"), FATAL)
def test_a_boot_that_cannot_succeed_is_known_at_once(line: str, kind: str) -> None:
    trouble = classify(line)[1]
    assert trouble is not None
    assert (trouble.kind, trouble.fatal) == (kind, True)


@pytest.mark.parametrize(
    ("line", "kind", "text"),
    [
        (
            "[FAILED] Failed to start NATS Server.",
            "unit failed",
            "Failed to start NATS Server.",
        ),
        (
            "[DEPEND] Dependency failed for Local File Systems.",
            "dependency failed",
            "Dependency failed for Local File Systems.",
        ),
        (
            "[ TIME ] Timed out waiting for device /dev/disk/by-label/nixos.",
            "device not found",
            "Timed out waiting for device /dev/disk/by-label/nixos.",
        ),
        (
            "[ TIME ] Timed out starting Wait for Network to be Configured.",
            "unit timed out",
            "Timed out starting Wait for Network to be Configured.",
        ),
        (
            "Timed out waiting for device /dev/disk/by-label/nixos, trying to mount anyway.",
            "root device not found",
            "Timed out waiting for device /dev/disk/by-label/nixos, trying to mount anyway",
        ),
        (
            "mount: mounting /dev/vda on /mnt-root/ failed: Invalid argument",
            "mount failed",
            "mount: mounting /dev/vda on /mnt-root/ failed: Invalid argument",
        ),
        (
            "qemu-kvm: error: failed to set MSR 0x10a to 0x69",
            "KVM unusable",
            "error: failed to set MSR 0x10a to 0x69",
        ),
        (
            (
                "/nix/store/x-qemu-8.2.4/bin/.qemu-system-x86_64-wrapped: "
                "Could not access KVM kernel module: Permission denied"
            ),
            "KVM unusable",
            "Could not access KVM kernel module: Permission denied",
        ),
        (
            "qemu-img: /run/d/disk.qcow2: error while writing: No space left on device",
            "host machine: disk full",
            "/run/d/disk.qcow2: error while writing: No space left on device",
        ),
        (
            "qemu-kvm: -netdev user,id=u: Could not set up host forwarding rule 'tcp::22-:22'",
            "host machine: address in use",
            "-netdev user,id=u: Could not set up host forwarding rule 'tcp::22-:22'",
        ),
        (
            "qemu-system-x86_64: cannot set up guest memory 'pc.ram': Cannot allocate memory",
            "host machine: out of memory",
            "cannot set up guest memory 'pc.ram': Cannot allocate memory",
        ),
        (
            "qemu-kvm: terminating on signal 15 from pid 77 (bash)",
            "QEMU was told to end",
            "terminating on signal 15 from pid 77 (bash)",
        ),
        (
            "[    5.123456] EXT4-fs (vda): Remounting filesystem read-only",
            "file system went read-only",
            "EXT4-fs (vda): Remounting filesystem read-only",
        ),
        (
            "cp: error writing 'x': No space left on device",
            "no space left",
            "cp: error writing 'x': No space left on device",
        ),
        ("[    9.9] reboot: Power down", "guest powered off", "reboot: Power down"),
        *(
            (f"{said} (press TAB for no echo)", "waits for a passphrase", said)
            for said in (
                "Passphrase for /dev/vdb:",
                "Please enter passphrase for disk QEMU (root):",
                "Please enter recovery key for disk QEMU (root):",
                "Please enter passphrase or recovery key for disk QEMU (root):",
                "Please enter LUKS2 token PIN:",
                "Please enter security token PIN:",
                "Please enter TPM2 PIN:",
            )
        ),
        (
            "[   56.1] I/O error, dev vda, sector 600576 op 0x1:(WRITE) flags 0x4000",
            "disk error",
            "I/O error, dev vda",
        ),
        (
            "Out of memory: Killed process 812 (ollama)",
            "out of memory",
            "Out of memory: Killed process 812 (ollama)",
        ),
    ],
)
def test_a_trouble_that_a_boot_can_survive(line: str, kind: str, text: str) -> None:
    assert classify(line)[1] == Trouble(kind=kind, text=text, fatal=False)


@pytest.mark.parametrize(
    "line",
    [
        "[  OK  ] Started Emergency Shell prerequisites check",
        "qemu-kvm: warning: host doesn't support requested feature: CPUID.80000001H:ECX.svm",
        "[  OK  ] Mounted /mnt-root backup.",
        "[    0.1] KVM: no trouble here",
        "emergency mode is documented in systemd.special(7)",
    ],
)
def test_harmless_lines_are_no_trouble(line: str) -> None:
    assert classify(line)[1] is None


@pytest.mark.parametrize(
    ("line", "job"),
    [
        (
            "[  *** ] A start job is running for Never Ending Story (12s / no limit)",
            StartJob(unit="Never Ending Story", elapsed_s=12, limit_s=None),
        ),
        (
            "[***   ] (1 of 3) A start job is running for /dev/disk/by-label/x (1min 2s / 1min 30s)",
            StartJob(unit="/dev/disk/by-label/x", elapsed_s=62, limit_s=90),
        ),
        (
            "[*     ] (2 of 2) Job nats.service/start running (1h 3s / no limit): loading",
            StartJob(unit="nats.service", elapsed_s=3603, limit_s=None),
        ),
        (
            "[    **] A stop job is running for Wait (really) for it (5s / 10s)",
            StartJob(unit="Wait (really) for it", elapsed_s=5, limit_s=10),
        ),
        ("[  OK  ] Started A job is running for fun.", None),
    ],
)
def test_a_running_job_is_read(line: str, job: StartJob | None) -> None:
    assert start_job(line) == job


def test_a_job_becomes_a_trouble_only_when_it_takes_long_and_only_once() -> None:
    console = Console()
    for elapsed in ("5s", "61s", "1min 2s"):
        console.append(f"[ *** ] A start job is running for X ({elapsed} / no limit)")
    assert console.troubles == [Trouble(kind="stuck unit", text="X (no limit)", fatal=False)]
    assert console.slow_job == StartJob(unit="X", elapsed_s=62, limit_s=None)


def test_phases_only_grow() -> None:
    console = Console()
    console.append("Welcome to NixOS 24.05 (Uakari)!")
    console.append("[   12.000000] e1000: link is up")
    assert console.phase is BootPhase.SYSTEMD


def test_control_sequences_are_removed_and_long_lines_cut() -> None:
    console = Console()
    console.append("\x1bM\r\x1b[K[\x1b[0;32m  OK  \x1b[0m] Started \x1b[0;1;39mX\x1b[0m.\r")
    console.append("\x1b]3008;start=abc\x1b\\shell\x07")
    console.append("y" * 100_000)
    assert console.tail()[:2] == ("[  OK  ] Started X.", "shell")
    assert len(console.tail()[2]) == 4096


def test_the_first_fatal_trouble_is_kept() -> None:
    console = Console()
    console.append("[FAILED] Failed to mount /data.")
    assert console.fatal_trouble is None
    console.append("You are in emergency mode.")
    console.append("Kernel panic - not syncing: later")
    assert console.fatal_trouble is not None
    assert console.fatal_trouble.kind == "emergency mode"


def test_a_guest_cannot_fill_memory_with_ever_new_troubles() -> None:
    console = Console()
    for number in range(2000):
        console.append(f"[FAILED] Failed to start {number}.")
    assert len(console.troubles) == 1000


@pytest.mark.parametrize(
    ("chunks", "lines"),
    [
        ([b"one\r\ntwo\n"], ("one", "two")),
        ([b"o", b"ne\r", b"\nt", b"wo\n"], ("one", "two")),
        ([b"10%\r20%\r30%\n"], ("10%", "20%", "30%")),
        ([b"\xff\xfe caf\xc3\xa9\n"], ("�� café",)),
        ([b"\r\r\nx\n"], ("", "x")),
    ],
)
def test_bytes_become_lines(chunks: list[bytes], lines: tuple[str, ...]) -> None:
    console = Console()
    reader = LineReader(console)
    for chunk in chunks:
        reader.feed(chunk)
    assert console.tail() == lines


def test_a_prompt_that_waits_is_a_line_and_half_a_word_is_not() -> None:
    console = Console()
    reader = LineReader(console)
    reader.feed(b"checking /dev/v")
    reader.idle()
    assert console.tail() == ()
    reader.feed(b"da...\r\nllm-host login: ")
    reader.idle()
    assert console.tail()[-1] == "llm-host login:"
    assert console.phase is BootPhase.LOGIN


def test_a_wait_for_a_device_is_told_while_it_lasts_and_its_dots_are_dropped() -> None:
    console = Console()
    reader = LineReader(console)
    reader.feed(b"waiting for device /dev/disk/by-label/x to appear...")
    reader.idle()
    assert [trouble.kind for trouble in console.troubles] == ["waits for a device"]
    for _ in range(3):
        reader.feed(b".")
        reader.idle()
    reader.feed(
        b"\r\nTimed out waiting for device /dev/disk/by-label/x, trying to mount anyway.\r\n"
    )
    assert [line[:28] for line in console.tail()] == [
        "waiting for device /dev/disk",
        "Timed out waiting for device",
    ]
    assert [trouble.kind for trouble in console.troubles] == [
        "waits for a device",
        "root device not found",
    ]


def test_repeated_job_reports_are_thinned_out() -> None:
    console = Console()
    reader = LineReader(console)
    for second in range(5, 9):
        reader.feed(
            b"\x1bM\r\x1b[K[ *** ] A start job is running for X (%ds / no limit)\r\n" % second
        )
    reader.feed(b"[ *** ] A start job is running for Y (9s / no limit)\r\n")
    assert [line.partition(" for ")[2] for line in console.tail()] == [
        "X (5s / no limit)",
        "Y (9s / no limit)",
    ]


def test_what_qemu_says_of_each_frame_is_no_console_line() -> None:
    console = Console()
    reader = LineReader(console)
    reader.feed(b"qemu-kvm: filter mirror send failed(Operation not permitted)\r\nx\r\n")
    assert console.tail() == ("x",)
    assert console.troubles == []


def test_a_flood_without_newline_is_bounded() -> None:
    console = Console()
    reader = LineReader(console)
    for _ in range(64):
        reader.feed(b"x" * 65536)
    assert len(console.lines) >= 32


def test_a_guest_that_writes_without_end_is_bounded() -> None:
    console = Console()
    for number in range(2001):
        console.append(f"boot {number}")
    mark = console.count
    for number in range(6000):
        console.append(f"{number} " + "x" * 3000)
    assert console.count == 8001
    kept = sum(len(line.text) for line in console.lines)
    assert kept < 10 << 20
    assert console.lines[0].text == "boot 0"
    assert console.tail(1)[0].startswith("5999 ")
    (told,) = [line.text for line in console.lines if "left out" in line.text]
    assert told == f"pytest-nixos: {8001 - len(console.lines) + 1} lines were left out here"
    # What came since a moment is what is left of it, and nothing from before.
    assert console.since(mark)[-1].text.startswith("5999 ")
    assert not any(line.text.startswith("boot") for line in console.since(mark))
    assert console.since(console.count) == ()
    assert next(line.text for line in console.since(7999)).startswith("5998 ")


def test_one_writer_and_many_readers() -> None:
    console = Console()
    stop = threading.Event()
    seen: list[int] = []

    def read() -> None:
        while not stop.is_set():
            seen.append(len(console.lines))

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for number in range(500):
        console.append(str(number))
    stop.set()
    for reader in readers:
        reader.join()
    assert len(console.lines) == 500
    assert max(seen) <= 500


def test_news_tell_each_phase_and_trouble_once() -> None:
    told: list[BootEvent] = []
    news = BootNews("llm-host", told.append)
    for line in ("<<< NixOS Stage 1 >>>", "running udev...", "[FAILED] Failed to start X.") * 2:
        news.console.append(line)
    assert [(e.machine, e.kind, e.text) for e in told] == [
        ("llm-host", BootEventKind.PHASE, "stage 1"),
        ("llm-host", BootEventKind.TROUBLE, "unit failed: Failed to start X."),
    ]


def test_an_emergency_before_any_greeting_is_in_stage_1() -> None:
    console = Console()
    console.append("[    0.000000] Linux version 6.6.32 (nixbld@localhost)")
    console.append("You are in emergency mode. After logging in, type")
    assert console.phase is BootPhase.STAGE_1
    console = Console()
    console.append("Welcome to NixOS 24.05 (Uakari)!")
    console.append("You are in emergency mode. After logging in, type")
    assert console.phase is BootPhase.SYSTEMD


def test_a_report_of_a_job_that_still_runs_is_no_step_of_the_boot() -> None:
    console = Console()
    time.sleep(0.05)
    console.append("[ ***  ] A start job is running for Never (5s / no limit)")
    assert console.still_s >= 0.05
    console.append("[  OK  ] Started Notes.")
    assert console.still_s < 0.05
