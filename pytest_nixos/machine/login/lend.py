"""Files of a guest that read otherwise for a while: what lies below is not touched and is there
again afterwards.
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator

from pytest_nixos.errors import MachineError, TransportError
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.command import Transport

__all__ = ["lent_file"]

_LIMIT_S = 30.0
# A file that is there is covered by a bind mount (mount(8)), which works on a read-only /etc and for
# what is a link; one that is not is made, with the directories that it needs, and taken away.
_LEND = r"""
set -e
umask 077
d=$(mktemp -d /run/pytest-nixos-lent.XXXXXXXXXX)
undo=$d/undo
: >"$undo"
trap '[ $? = 0 ] || { . "$undo"; rm -rf -- "$d"; }' EXIT
{ %(make)s
} >"$d/file"
if [ -e "$path" ]; then
  real=$(readlink -f -- "$path")
  chown --reference="$real" "$d/file"
  chmod --reference="$real" "$d/file"
  mount --bind -- "$d/file" "$real"
  printf 'umount -- %%q\n' "$real" >>"$undo"
else
  made=()
  parent=$(dirname -- "$path")
  while [ ! -d "$parent" ]; do made=("$parent" "${made[@]}"); parent=$(dirname -- "$parent"); done
  for parent in "${made[@]}"; do
    mkdir -m 755 -- "$parent"
    chown -- "$owner" "$parent"
    { printf 'rmdir -- %%q\n' "$parent"; cat "$undo"; } >"$undo.new"
    mv "$undo.new" "$undo"
  done
  install -m 644 -o "$owner" -- "$d/file" "$path"
  { printf 'rm -f -- %%q\n' "$path"; cat "$undo"; } >"$undo.new"
  mv "$undo.new" "$undo"
fi
echo "$d"
"""
_GIVE_BACK = ". {d}/undo && rm -rf -- {d}"


@contextlib.contextmanager
def lent_file(
    transport: Transport, path: str, content: bytes, *, owner: str, make: str = "cat"
) -> Iterator[None]:
    """Let a file of the guest read as `content`, until the context ends.

    :param path: absolute; where there is such a file, its owner and mode stay.
    :param make: bash text that makes what the file reads as of `content`, in the guest, where ``$path``
        is what it was.
    :param owner: of what has to be made.
    :raises MachineError: if the guest cannot do that, or cannot take it back.
    """
    words = f"path={shlex.quote(path)} owner={shlex.quote(owner)}"
    limit = Deadline.after(_LIMIT_S)
    lent = transport.run(f"{words}\n{_LEND % {'make': make}}", deadline=limit, stdin=content)
    if not lent.succeeded:
        raise MachineError(
            f"{path}: cannot read otherwise for the time of a test: {lent.stderr_text.strip()}",
            remedy="look at the file system that it lies on, and whether root of the guest may mount",
        )
    directory = shlex.quote(lent.stdout_text.strip())
    try:
        yield
    finally:
        # A guest that has gone took it along.
        with contextlib.suppress(TransportError):
            back = transport.run(_GIVE_BACK.format(d=directory), deadline=Deadline.after(_LIMIT_S))
            if not back.succeeded:
                raise MachineError(
                    f"{path}: what was lent is still there: {back.stderr_text.strip()}",
                    remedy="use a fresh machine for what follows: nixos_fresh_machine",
                )
