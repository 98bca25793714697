"""A command that goes on in the guest beside the root command channel, with pipes in a directory of its own below
``/run``.

It runs in a control group of its own, so that its end takes all that it started along. That group lies below the
channel's: no unit is started for it, which takes systemd several times as long as the command's own start.
"""

from __future__ import annotations

import contextlib
import secrets
from types import TracebackType
from typing import Self

import msgspec

from pytest_nixos.errors import MachineError
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.command import CommandResult, Transport

__all__ = ["Fetched", "GuestJob"]

_RUN = "/run"
# Seconds that one trip of the channel may take.
_TRIP_S = 60.0
# Seconds after which whoever does not fetch has gone without a word.
_FETCHED_S = 600
# Seconds that what is left has to end by itself, and then again to be gone.
_GRACE_S = 1.0
# Seconds between two looks whether something came.
_NAP_S = 0.02
# The exit status of what fetches where the command has ended.
_OVER = 77
# Of 64 KiB, that are fetched at most of each pipe.
_BLOCKS = 16
# The group is made where the shell of this trip is, and that shell enters it (cgroups(7); systemd's own hierarchy
# where the machine has others beside it). Job control leaves Ctrl-C to what runs: a shell without it has its
# background ignore that.
# Of pipes the job holds both ends: the writer's until the status is there, and the reader's until all was
# fetched, since what is in a pipe goes with the last who has it open; `in` is open before this trip ends. Another shell
# holds the writer's end of that until it is told that no more comes: then the command's end of it reads as ended.
_START = """
d={d} g= p=/run/current-system/sw/bin
[[ :$PATH: == *:$p:* ]] || PATH=$PATH:$p
for n in {needs}; do type -P $n >/dev/null || {{ echo "no program $n" >&2; exit 1; }}; done
while IFS=: read -r n c p; do
  case $n:$c in
    0:) for n in /sys/fs/cgroup /sys/fs/cgroup/unified; do [ ! -e $n/cgroup.procs ] || g=$n$p/${{d##*/}}; done ;;
    *:name=systemd) g=/sys/fs/cgroup/systemd$p/${{d##*/}} ;;
  esac
done </proc/self/cgroup
mkdir -m 700 $d "$g" && mkfifo -m 600 $d/in $d/out $d/err $d/no-more $d/never && echo 0 >"$g/cgroup.procs" || {{
  rm -rf $d; rmdir "$g"; exit 1
}} 2>/dev/null
export HOME=/root USER=root LOGNAME=root SHELL="$BASH"
exec 3<>$d/no-more 8<>$d/in 9<$d/in
set -m
(
  ( read -r _ <&3 ) 9<&- &
  exec 3>&- 8>&- 4<>$d/out 5<>$d/err 6<$d/out 7<$d/err
  cd
  {run} <&9 >&4 2>&{errors} 4>&- 5>&- 6<&- 7<&- 9<&-
  echo $? >$d/status
  exec 4>&- 5>&-
  kill $!
  read -r -t {fetched} _ <>$d/never
) </dev/null >/dev/null 2>&1 &
echo $! "$g" >$d/group
set +m
"""
# In a PID namespace processes of others show as 0, which kill takes for its own group: such words vanish here.
_END = """
cd {d} && read -r j g <group && exec 5<>never || exit
s=; [ ! -s status ] || read -r s <status
echo $s
{rest}
for ((n = 0; n < {looks}; n++)); do
  mapfile -t p <"$g/cgroup.procs"
  [ -n "$p" ] || break
  case $n in
    0) for c in TERM HUP CONT; do kill -$c ${{p[@]/#0/}}; done ;;
    {half}) kill -KILL ${{p[@]/#0/}}; echo 1 >"$g/cgroup.kill" ;;
  esac
  read -r -t {nap} -u 5
done 2>/dev/null
rm -rf {d}; rmdir "$g"
"""
# It only looks whether something came (`read -t 0`): a reader that is ended at the limit takes with it what it
# has read and not yet passed on. Nobody writes to `never`, so to read it is to sleep. A program is
# started for what came alone: somebody who thinks before a shell costs an emulated guest little.
_FETCH = """
cd {d} && exec 3<>out 4<>err 5<>never || exit
for ((n = 0; n < {looks}; n++)); do
  [ ! -s status ] && ! read -r -t 0 -u 3 && ! read -r -t 0 -u 4 || break
  read -r -t {nap} -u 5
done
s=; [ ! -s status ] || s=1
! read -r -t 0 -u 3 || dd bs=64K count={blocks} iflag=nonblock <&3 2>/dev/null
! read -r -t 0 -u 4 || dd bs=64K count={blocks} iflag=nonblock <&4 >&2 2>/dev/null
[ -z "$s" ] || exit {over}
exit 0
"""


class Fetched(msgspec.Struct, frozen=True):
    """What came through its pipes.

    :param has_ended: whether its command had ended before.
    """

    stdout: bytes
    stderr: bytes
    has_ended: bool

    @property
    def is_all(self) -> bool:
        """Whether nothing more will come."""
        most = _BLOCKS << 16
        return self.has_ended and len(self.stdout) < most and len(self.stderr) < most


class GuestJob:
    """A command that goes on beside the channel; a context manager that ends it.

    :param transport: the machine's root command channel.
    :param run: bash text of one command, without redirections; ``$d`` is its directory.
    :param what: what it is, one word for errors and for its directory ("program").
    :param needs: programs of the guest that it takes, but for coreutils.
    :param errors: descriptor that gets its standard error: 5 the pipe for that, 4 the one of its
        standard output.
    :param rest: bash text that treats what the command left running, before all of its group ends;
        ``$s`` is its exit status, empty while it runs, ``$j`` the process that awaits it and ``$g``
        the directory of its control group.
    :param first_wait_s: seconds that the trip which starts it waits for what it prints first; it
        then brings that, see :meth:`_take_first`.
    :raises MachineError: if the guest cannot start it.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        run: str,
        what: str,
        needs: tuple[str, ...] = (),
        errors: int = 5,
        rest: str = "",
        first_wait_s: float = 0.0,
    ) -> None:
        self._transport = transport
        self._what = what
        self._rest = rest
        self._directory = f"{_RUN}/pytest-nixos-{what}.{secrets.token_hex(8)}"
        #: once it has ended
        self.exit_status: int | None = None
        self._first: Fetched | None = None
        start = _START.format(
            d=self._directory,
            run=run,
            needs=" ".join(needs),
            errors=errors,
            fetched=_FETCHED_S,
        )
        fetch = self._fetch_text(first_wait_s) if first_wait_s else ""
        started = self._run(start + fetch)
        if started.exit_status in (0, _OVER):
            self._first = _fetched(started) if fetch else None
        else:
            raise MachineError(
                f"a {what} cannot be started in the guest: {started.stderr_text.strip()}",
                remedy=f"the guest needs {' and '.join((*needs, 'coreutils'))}, a control group that root can divide"
                " and room in /run, as NixOS has them; nixos_machine.run() works without",
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        with contextlib.suppress(MachineError):
            half = round(_GRACE_S / _NAP_S)
            end = _END.format(
                d=self._directory, rest=self._rest, half=half, looks=2 * half, nap=_NAP_S
            )
            said = self._run(end).stdout_text.strip()
            if said.isdigit():
                self.exit_status = int(said)

    def _fetch(self, *, wait_s: float, before: str = "", stdin: bytes = b"") -> Fetched:
        """Fetch what came through the pipes `out` and `err` of its directory.

        :param wait_s: seconds at most until something comes.
        :param before: bash text that runs first.
        :param stdin: standard input of that text.
        :raises MachineError: if the guest is gone.
        """
        answer = self._run(before + self._fetch_text(wait_s), stdin)
        if answer.exit_status not in (0, _OVER):
            raise self._gone(answer)
        return _fetched(answer)

    def _fetch_text(self, wait_s: float) -> str:
        return _FETCH.format(
            d=self._directory,
            looks=round(wait_s / _NAP_S),
            nap=_NAP_S,
            blocks=_BLOCKS,
            over=_OVER,
        )

    def _take_first(self) -> Fetched | None:
        """Return what the trip brought that started it, once; ``None`` where that did not wait."""
        first, self._first = self._first, None
        return first

    def _gone(self, answer: CommandResult) -> MachineError:
        return MachineError(
            f"the {self._what} in the guest is gone: {answer.stderr_text.strip()}",
            remedy="start it again",
        )

    def _run(self, command: str, stdin: bytes = b"") -> CommandResult:
        return self._transport.run(command, deadline=Deadline.after(_TRIP_S), stdin=stdin)


def _fetched(answer: CommandResult) -> Fetched:
    return Fetched(answer.stdout, answer.stderr, answer.exit_status == _OVER)
