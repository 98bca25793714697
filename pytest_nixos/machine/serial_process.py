"""A process on a terminal of its own: a thread owns both and feeds the console."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pexpect
from pexpect.fdpexpect import fdspawn

from pytest_nixos.errors import MachineError
from pytest_nixos.local.process import start_on_terminal, stop_group
from pytest_nixos.machine.console import Console, clean, start_job

__all__ = ["LineReader", "SerialProcess"]

_CHUNK = 1 << 16
_READ_WAIT_S = 0.25
_LONGEST_LINE = 1 << 16
_JOB_REPEAT_S = 10.0
# net/filter-mirror.c says so of each frame while no prober listens.
_QEMU_NOISE = "filter mirror send failed"
# Partial lines that wait: stage 1 for a device (dots follow), getty, sulogin, a passphrase, a
# shell.
_PROMPT = re.compile(
    r"^waiting for device \S+ to appear\.|(?:login|[Pp]assword|[Pp]assphrase\b.*|maintenance.*|continue\)?):\s*"
    r"(?:\(press TAB for no echo\)\s*)?$|[#$] $"
)

# systemd's prompt with what the kernel or a unit wrote behind it while it waits; an answer shows as stars (ask-password-api.c).
_INTERRUPTED = re.compile(r"^(.*\(press TAB for no echo\))\s*(?![*\s])(?=.)")


class LineReader:
    """Cuts serial bytes into console lines.

    systemd repeats "A start job is running ..." three times a second; of these one line per job and
    ten seconds is kept.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._rest = b""
        self._interrupted = ""
        self._job = ""
        self._job_at_s = 0.0

    def feed(self, chunk: bytes) -> None:
        """Take bytes as they come, of any kind."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            self._append(line)
        if len(self._rest) > _LONGEST_LINE:
            self.flush()

    def idle(self) -> str:
        """Nothing came for a while: a prompt that waits counts as a line; return it, ``""`` for
        none. One behind which something else was written waits as well.
        """
        waiting = clean(self._rest.decode(errors="replace"))
        if not waiting or not _PROMPT.search(waiting + " "):
            interrupted, self._interrupted = self._interrupted, ""
            return interrupted
        self.flush()
        return waiting

    def flush(self) -> None:
        """Take what is there as a line."""
        rest, self._rest = self._rest, b""
        if rest.strip():
            self._append(rest)

    def _append(self, line: bytes) -> None:
        # A carriage return inside overwrites a line: what stood there is a line of its own in a
        # record.
        *overwritten, last = line.rstrip(b"\r").decode(errors="replace").split("\r")
        for text in (*filter(clean, overwritten), last):
            self._append_text(text)

    def _append_text(self, text: str) -> None:
        cleaned = clean(text)
        if found := _INTERRUPTED.match(cleaned):
            self._interrupted = found[1]
        if cleaned and not cleaned.strip("."):
            return  # dots of a wait that is in the record already
        if _QEMU_NOISE in cleaned:
            return
        job = start_job(cleaned)
        if job is not None:
            now_s = self._console.elapsed_s
            if job.unit == self._job and now_s - self._job_at_s < _JOB_REPEAT_S:
                return
            self._job, self._job_at_s = job.unit, now_s
        self._console.append(text)


class SerialProcess:
    """A process that leads a session of its own, with a terminal as its standard streams.

    It is started, read and reaped by one thread that lives as long as the process: "die with the
    parent" means the *thread* that forked (prctl(2), ``PR_SET_PDEATHSIG``), and only one thread may
    wait for it.

    :param env: the whole environment.
    :param answer: from a prompt that waits on the terminal to the line that is typed there, ``""``
        for none; called on the thread that reads.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        console: Console,
        answer: Callable[[str], str] = lambda _prompt: "",
    ) -> None:
        self.argv = tuple(argv)
        self.pid = 0
        self.exit_status: int | None = None
        self._env = dict(env)
        self._cwd = cwd
        self._console = console
        self._answer = answer
        self._started = threading.Event()
        self._ended = threading.Event()
        self._failure: BaseException | None = None
        self._released = threading.Event()
        self._handed = threading.Event()
        self._terminal = -1
        self._owner = threading.Thread(target=self._own, name="nixos-console", daemon=True)

    def start(self) -> None:
        """Start the process.

        :raises MachineError: if the program cannot be run at all.
        """
        self._owner.start()
        self._started.wait()
        if self._failure is not None:
            raise MachineError(
                f"{self.argv[0]}: cannot be started: {self._failure}",
                remedy="check that the host's run script was built for this machine and is executable",
            ) from self._failure

    @property
    def has_ended(self) -> bool:
        """Whether the process has ended and its exit status is known."""
        return self._ended.is_set()

    def wait_ended(self, limit_s: float) -> bool:
        """Wait for the end, at most `limit_s` seconds; return whether it came."""
        return self._ended.wait(limit_s)

    @property
    def end_words(self) -> str:
        """How it ended, for a message: ``with exit status 1`` or ``by signal 9``."""
        status = self.exit_status
        if status is None:
            return "not yet"
        return f"by signal {-status}" if status < 0 else f"with exit status {status}"

    @property
    def end_kind(self) -> str:
        """The sort of end: ``was killed`` or ``ended``."""
        return "was killed" if (self.exit_status or 0) < 0 else "ended"

    def stop(self, *, grace_s: float) -> None:
        """End the process and its whole group, and wait for the console's last line."""
        if self.pid:
            stop_group(self.pid, is_gone=self._ended.is_set, grace_s=grace_s)
            self._owner.join(timeout=grace_s + 5.0)

    def let_go(self) -> int:
        """Return the descriptor of the terminal for another process that reads it from now on; it is
        closed here with the process.
        """
        self._released.set()
        self._handed.wait()
        return self._terminal

    def _own(self) -> None:
        try:
            process, terminal = start_on_terminal(self.argv, env=self._env, cwd=self._cwd)
        except OSError as err:
            self._failure = err
            self._ended.set()
            return
        else:
            self.pid = process.pid
        finally:
            self._started.set()
        self._terminal = terminal
        serial: fdspawn[bytes] = fdspawn(terminal, maxread=_CHUNK, encoding=None, use_poll=True)
        with contextlib.closing(serial):
            self._pump(serial, lambda: self._released.is_set() or process.poll() is not None)
            self._handed.set()
            # End of file comes before death if the process closed its terminal.
            self.exit_status = process.wait()
        self._ended.set()

    def _pump(self, serial: fdspawn[bytes], is_gone: Callable[[], bool]) -> None:
        """Feed the console until the terminal is closed, or whoever still holds it is not the
        process and says nothing.
        """
        reader = LineReader(self._console)
        while True:
            try:
                reader.feed(serial.read_nonblocking(_CHUNK, timeout=_READ_WAIT_S))
            except pexpect.TIMEOUT:
                prompt = reader.idle()
                if prompt and (typed := self._answer(prompt)):
                    serial.send(f"{typed}\r".encode())
                if is_gone():
                    break
            except (pexpect.EOF, OSError):
                break
        reader.flush()
