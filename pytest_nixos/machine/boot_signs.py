"""What one console line proves about a boot: phases reached, troubles met, units that hold it up.

The exact texts come from: nixpkgs ``nixos/modules/system/boot/stage-1-init.sh``,
``stage-2-init.sh`` and ``systemd/initrd.nix`` (24.05); systemd ``src/core/manager.c``,
``src/core/job.c``, ``src/core/main.c``, ``src/shared/crash-handler.c``,
``src/sulogin-shell/sulogin-shell.c`` and ``src/fsck/fsck.c`` (249 to 257); util-linux
``login-utils/sulogin.c``; Linux ``kernel/panic.c``, ``mm/oom_kill.c``, ``init/do_mounts.c``; QEMU
``util/error-report.c`` (``program: message``).
"""

from __future__ import annotations

import enum
import re

import msgspec

__all__ = ["BootPhase", "StartJob", "Trouble", "classify", "start_job"]

_SLOW_JOB_S = 60.0


class BootPhase(enum.IntEnum):
    """How far a boot has come; it only grows."""

    STARTED = 0
    KERNEL = 1
    STAGE_1 = 2
    STAGE_2 = 3
    SYSTEMD = 4
    LOGIN = 5

    @property
    def words(self) -> str:
        """The phase as people say it: ``stage 1``."""
        return _PHASE_WORDS[self][0]

    @property
    def where(self) -> str:
        """The phase as a place in a sentence: ``in stage 1``."""
        return _PHASE_WORDS[self][1]


_PHASE_WORDS = {
    BootPhase.STARTED: ("start", "before the kernel's first line"),
    BootPhase.KERNEL: ("kernel", "in the kernel"),
    BootPhase.STAGE_1: ("stage 1", "in stage 1"),
    BootPhase.STAGE_2: ("stage 2", "in stage 2"),
    BootPhase.SYSTEMD: ("systemd", "while systemd starts units"),
    BootPhase.LOGIN: ("login prompt", "at the login prompt"),
}


class Trouble(msgspec.Struct, frozen=True, kw_only=True):
    """A boot that went wrong, or a unit that holds it up.

    :param kind: ``kernel panic``, ``stage 1 failed``, ``emergency mode``, ``stuck unit``, ...
    :param fatal: whether the boot cannot succeed any more.
    """

    kind: str
    text: str
    fatal: bool


class StartJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job that systemd reports as still running.

    :param unit: what systemd calls it: a description, or a unit name with newer status formats.
    :param limit_s: seconds after which systemd gives up, ``None`` for no limit.
    """

    unit: str
    elapsed_s: float
    limit_s: float | None

    @property
    def limit_words(self) -> str:
        """The limit as people say it."""
        return "no limit" if self.limit_s is None else f"limit {self.limit_s:g} s"


class _Sign(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of trouble: the group of `pattern` is its text, the whole line without one.

    No pattern may begin with a repetition: a guest's long line would cost its length squared. It is text: a clone
    says nothing on its console, and compiles none.
    """

    kind: str
    pattern: str
    fatal: bool


def _sign(kind: str, pattern: str, *, fatal: bool) -> _Sign:
    return _Sign(kind=kind, pattern=pattern, fatal=fatal)


# error-report.c: a program's name before its message; nixpkgs may wrap it as ".qemu-...-wrapped".
_QEMU = r"^(?:\S*/)?\.?qemu-[\w.-]+: (?!(?:warning|info): )"

# Order matters: the first sign that matches a line names it.
_TROUBLES = (
    # mm/oom_kill.c; the death of pid 1 is followed by a panic.
    _sign("out of memory", r"(Out of memory: Killed process 1 \(.*)", fatal=True),
    _sign("out of memory", r"(Out of memory: Killed process \d+ \(.*)", fatal=False),
    # kernel/panic.c; "Attempted to kill init!", "VFS: Unable to mount root fs", "No working init
    # found".
    _sign("kernel panic", r"(?<!end )(Kernel panic - not syncing.*)", fatal=True),
    # init/do_mounts.c, without an initrd.
    _sign("root device not found", r"(VFS: Cannot open root device .*)", fatal=False),
    # stage-1-init.sh: waitDevice tries twenty times for a second and more, then checkFS,
    # switch_root, fail.
    _sign("waits for a device", r"waiting for device (\S+) to appear", fatal=False),
    _sign(
        "root device not found",
        r"(Timed out waiting for device .*, trying to mount anyway)",
        fatal=False,
    ),
    _sign("file system check failed", r"(fsck finished, rebooting\.\.\.)", fatal=True),
    _sign(
        "file system check failed",
        r"has unrepaired errors, please fix them manually",
        fatal=True,
    ),
    _sign("file system check failed", r"(fsck on \S+ failed\.)", fatal=True),
    _sign("stage 1 failed", r"(stage 2 init script \(.*\) not found)", fatal=True),
    _sign("stage 1 failed", r"(An error occurred in stage 1 of the boot process.*)", fatal=True),
    # nix/expressions/declared-disks.nix
    _sign("own disks failed", r"(pytest-nixos: the declared disks could not be made)", fatal=True),
    # stage 1 mounts with busybox ("mount: mounting X on /mnt-root/Y failed: why") or util-linux.
    _sign("mount failed", r"(mount: mounting .* on /mnt-root\S* failed: .*)", fatal=False),
    _sign("mount failed", r"(mount: /mnt-root\S*: .*)", fatal=False),
    # initrd.nix, initrd-nixos-activation.
    _sign("stage 1 failed", r"(No init= parameter on the kernel command line)", fatal=True),
    # sulogin-shell.c and older emergency.service; sulogin.c with its wording before and since 2.40.
    _sign("emergency mode", r"((?:You are in|Welcome to|Entering) emergency mode.*)", fatal=True),
    _sign("rescue mode", r"((?:You are in|Welcome to|Entering) rescue mode.*)", fatal=True),
    _sign("emergency mode", r"(Reached target .*Emergency Mode.*)", fatal=True),
    _sign("rescue mode", r"(Reached target .*Rescue Mode.*)", fatal=True),
    _sign(
        "emergency mode",
        r"(Cannot open access to console, the root account is locked.*)",
        fatal=True,
    ),
    _sign(
        "emergency mode",
        r"((?:Press Enter|(?:Give|Enter) root password) for (?:system )?maintenance.*)",
        fatal=True,
    ),
    # luksroot.nix and systemd's cryptsetup.c, cryptsetup-token-*.c, libfido2-util.c, tpm2-util.c:
    # nobody will answer.
    _sign(
        "waits for a passphrase",
        r"(Please enter (?:passphrase|(?:passphrase or )?recovery key) for disk .*?:"
        r"|Please enter (?:LUKS2 token|security token|TPM2) PIN:|Passphrase for \S+.*?:)",
        fatal=False,
    ),
    # crash-handler.c, main.c (log_emergency, and the status "!!!!!!" of fatal errors of pid 1).
    _sign("systemd crashed", r"systemd\[1\]: (Caught <\w+>.*)", fatal=True),
    _sign("systemd crashed", r"(\[!{4,}\] .*)", fatal=True),
    _sign("systemd crashed", r"systemd\[1\]: (Freezing execution.*)", fatal=True),
    # fsck.c of systemd; emergency mode follows unless the file system is "nofail".
    _sign("file system check failed", r"systemd-fsck\[\d+\]: (fsck failed with .*)", fatal=False),
    # job.c: status words of jobs; device timeouts come as a line of "TIME" of their own.
    _sign("device not found", r"\[ TIME \] (Timed out waiting for device .*)", fatal=False),
    _sign("unit timed out", r"\[ TIME \] (Timed out .*)", fatal=False),
    _sign("unit failed", r"\[FAILED\] (Failed to .*|.* failed.*)", fatal=False),
    _sign("dependency failed", r"\[DEPEND\] (Dependency failed for .*)", fatal=False),
    # QEMU and qemu-img write to the same terminal as the guest.
    _sign(
        "KVM unusable",
        rf"{_QEMU}(.*(?:failed to set MSR|KVM|kvm).*)",
        fatal=False,
    ),
    _sign("host machine: disk full", rf"{_QEMU}(.*No space left on device.*)", fatal=False),
    _sign(
        "host machine: address in use",
        rf"{_QEMU}(.*(?:Address already in use|set up host forwarding rule).*)",
        fatal=False,
    ),
    _sign("host machine: out of memory", rf"{_QEMU}(.*Cannot allocate memory.*)", fatal=False),
    _sign("QEMU was told to end", rf"{_QEMU}(terminating on signal .*)", fatal=False),
    _sign("QEMU failed", rf"{_QEMU}(.*)", fatal=False),
    # fs/ext4/super.c and block/blk-core.c: the guest's own disk went bad or full.
    _sign("file system went read-only", r"[Rr]emounting filesystem read-only", fatal=False),
    _sign("disk error", r"(I/O error, dev \w+), sector ", fatal=False),
    _sign("no space left", r"No space left on device", fatal=False),
    # kernel/reboot.c
    _sign("guest rebooted", r"(reboot: (?:Restarting system|machine restart).*)", fatal=False),
    _sign("guest powered off", r"(reboot: (?:Power down|System halted).*)", fatal=False),
)

# From the last phase to the first: a line proves the furthest phase that it can.
_PHASES = (
    # agetty: issue, host name, "login: ".
    (BootPhase.LOGIN, re.compile(r"(?:^|\s)login:(?: \S+ \(automatic login\))?$")),
    # main.c of systemd greets in stage 1 too, where NixOS marks the name with "(Initrd)".
    (
        BootPhase.STAGE_1,
        re.compile(r"^Welcome to .*\((?:Initrd|dracut)\b|Running in init(?:rd|ial RAM disk)\."),
    ),
    (
        BootPhase.SYSTEMD,
        re.compile(r"^Welcome to .*!$|Reached target Multi-User System"),
    ),
    (
        BootPhase.STAGE_2,
        re.compile(
            r"<<< .* Stage 2 >>>|booting system configuration /|^starting systemd\.\.\.|stage-2-init:"
        ),
    ),
    (BootPhase.STAGE_1, re.compile(r"<<< .* Stage 1 >>>|stage-1-init:|^running udev\.\.\.")),
    # A status line, or a shell for emergencies, comes from a systemd; one that was not greeted before is that of the initrd, which
    # `quiet` keeps silent.
    (
        BootPhase.STAGE_1,
        re.compile(
            r"^\[(?:  OK  |FAILED|DEPEND| TIME | INFO | WARN )\] "
            r"|(?:You are in|Welcome to|Entering) (?:emergency|rescue) mode"
            r"|for (?:system )?maintenance|the root account is locked"
        ),
    ),
    (BootPhase.KERNEL, re.compile(r"^\[ *\d+\.\d{6}\] |^Linux version \d")),
)

# manager.c, manager_print_jobs_in_progress: the first form with unit descriptions, the second with
# names.
_START_JOB = re.compile(
    r"(?:A [a-z-]+ job is running for (?P<description>.+?)|Job (?P<name>\S+)/[a-z-]+ running)"
    r" \((?P<elapsed>[^()/]+) / (?P<limit>[^()/]+)\)"
)
_TIMESTAMP = re.compile(r"^\[ *\d+\.\d{6}\] ")
_SPAN = re.compile(r"(\d+)(w|d|h|min|s)\b")
_SPAN_S = {"w": 604800, "d": 86400, "h": 3600, "min": 60, "s": 1}


def classify(text: str) -> tuple[BootPhase | None, Trouble | None]:
    """Read one cleaned console line: the phase that it proves and the trouble that it tells."""
    return _phase(text), _trouble(text)


def start_job(text: str) -> StartJob | None:
    """Read systemd's report of a job that is still running, if `text` is one."""
    found = _START_JOB.search(text)
    if found is None:
        return None
    return StartJob(
        unit=found["description"] or found["name"],
        elapsed_s=_seconds(found["elapsed"]) or 0.0,
        limit_s=_seconds(found["limit"]),
    )


def _phase(text: str) -> BootPhase | None:
    return next((phase for phase, pattern in _PHASES if pattern.search(text)), None)


def _trouble(text: str) -> Trouble | None:
    job = start_job(text)
    if job is not None:
        # The elapsed time stays out of the text, so that one unit is one trouble.
        slow = job.elapsed_s >= _SLOW_JOB_S
        named = Trouble(kind="stuck unit", text=f"{job.unit} ({job.limit_words})", fatal=False)
        return named if slow else None
    for sign in _TROUBLES:
        found = re.search(sign.pattern, text)
        if found is not None:
            return Trouble(
                kind=sign.kind,
                text=_TIMESTAMP.sub("", found[1] if found.re.groups else text).strip(),
                fatal=sign.fatal,
            )
    return None


def _seconds(span: str) -> float | None:
    """Read ``1min 30s``; anything without a number (``no limit``, ``infinity``) has no end."""
    parts = _SPAN.findall(span)
    return float(sum(int(number) * _SPAN_S[unit] for number, unit in parts)) if parts else None
