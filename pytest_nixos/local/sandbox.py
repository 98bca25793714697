"""A sandbox for programs that a flake brings along: the host's run script, the QEMU that it
starts, and QEMU's tools.

What runs in it sees programs (``/nix/store``, ``/usr``), read-only, the directories that it is
given, and nothing else of this machine: no home, no other process, no network unless it is asked
for, no capability, no namespace of its own to regain one. It keeps its user id, so that files
belong to whom they should. :mod:`pytest_nixos.local.sandbox_program` does it.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from msgspec.structs import replace

from pytest_nixos.local.process import Completed, LineSink, Runner, find_tool
from pytest_nixos.local.timing import Deadline

__all__ = ["Sandbox", "SandboxedRunner", "into_network_of", "payload_pid", "sandbox_refusal"]

_PROGRAM = Path(__file__).with_name("sandbox_program.py")
_NAME = "pytest-nixos-sandbox"
_TRY_S = 20.0
# What a run script, QEMU and their tools are told by; a token or password in the environment is
# none of it.
_VARIABLES = frozenset(
    {"HOME", "LANG", "LOGNAME", "PATH", "TERM", "TMPDIR", "TZ", "USER", "USE_TMPDIR", "SHARED_DIR"}
)
_PREFIXES = ("LC_", "NIX_", "NIXPKGS_QEMU_", "QEMU_")


class Sandbox(msgspec.Struct, frozen=True, kw_only=True):
    """What a program may see beside other programs.

    :param writable: directories and files that it may write to.
    :param readable: directories and files that it may read.
    :param devices: device nodes that it may use, where they are there.
    :param network: whether it has this machine's network; else only a loopback of its own.
    :param served_by: of that one, the Unix socket of who answers for names and the time at every
        address of it, see :class:`~pytest_nixos.machine.network.stand_in.HandedOver`.
    """

    writable: tuple[Path, ...] = ()
    readable: tuple[Path, ...] = ()
    devices: tuple[Path, ...] = (Path("/dev/kvm"),)
    network: bool = False
    served_by: Path | None = None

    def argv(self, program: Sequence[str]) -> tuple[str, ...]:
        """Build the command that runs `program` in the sandbox."""
        given = {"--ro": self.readable, "--rw": self.writable, "--device": self.devices}
        words = [
            w for option, paths in given.items() for path in paths for w in (option, str(path))
        ]
        network: tuple[str, ...] = ("--network",) if self.network else ()
        if self.served_by is not None:
            network = ("--served-by", str(self.served_by))
        python = (sys.executable, "-I", "-S", str(_PROGRAM))
        return (*python, *words, *network, "--", *program)

    @staticmethod
    def environment(inherited: Mapping[str, str]) -> dict[str, str]:
        """Leave of an environment what the programs are told by."""
        return {
            name: value
            for name, value in inherited.items()
            if name in _VARIABLES or name.startswith(_PREFIXES)
        }


class SandboxedRunner:
    """A :class:`Runner` whose commands run in a sandbox; their working directory is theirs to
    write to.
    """

    def __init__(self, inner: Runner, sandbox: Sandbox) -> None:
        self._inner = inner
        self._sandbox = sandbox

    def run(
        self,
        argv: Sequence[str],
        *,
        deadline: Deadline,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        on_stderr_line: LineSink | None = None,
    ) -> Completed:
        given = self._sandbox.writable if cwd is None else (*self._sandbox.writable, cwd)
        # A short command answers nobody.
        sandbox = replace(self._sandbox, writable=given, served_by=None)
        return self._inner.run(
            sandbox.argv(argv),
            deadline=deadline,
            stdin=stdin,
            env=env,
            cwd=cwd,
            on_stderr_line=on_stderr_line,
        )


def sandbox_refusal(runner: Runner) -> str:
    """Say why no sandbox can be made here, ``""`` if one can; found out by making one."""
    done = runner.run(Sandbox().argv(("/bin/sh", "-c", ":")), deadline=Deadline.after(_TRY_S))
    if done.exit_status == 0:
        return ""
    lines = [line.removeprefix(f"{_NAME}: ") for line in done.stderr_text.splitlines()]
    return lines[-1] if lines else f"exit status {done.exit_status}"


def into_network_of(pid: int) -> tuple[str, ...]:
    """Return the words before a command that put it into the network of process `pid`, none where
    that is this process's own.
    """
    spaces = [kind for kind in ("user", "net") if _namespace(pid, kind) != _namespace("self", kind)]
    if "net" not in spaces:
        return ()
    nsenter = find_tool("nsenter", remedy="install util-linux")
    user = ("--user", "--preserve-credentials") if "user" in spaces else ()
    return (nsenter, f"--target={pid}", *user, "--net", "--")


def _namespace(pid: int | str, kind: str) -> str:
    try:
        return str(Path(f"/proc/{pid}/ns/{kind}").readlink())
    except OSError:
        return ""


def payload_pid(pid: int, *, proc: Path = Path("/proc")) -> int:
    """Return the process that a sandbox was made for, the eldest grandchild of `pid`; `pid`
    itself if there is no such process.
    """
    found = pid
    for _ in range(2):
        with contextlib.suppress(OSError):
            children = (proc / str(found) / "task" / str(found) / "children").read_text().split()
            if children:
                found = int(children[0])
                continue
        return pid
    return found
