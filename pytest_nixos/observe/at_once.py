"""Parts of one trip's script, run on all processors of the guest at once.

A few workers take parts from a queue, each writes to a nameless file of its own, and one ``cat``
gives the files when all have ended. Where the guest has one processor, too little memory for two
programs at a time, or nowhere to put a file, or where a part opens its output by name
(``/dev/stdout``), the parts run one after the other.

What several parts read of systemd, the table of units, is asked for beside the first of them.
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

__all__ = ["TAKE_TABLE", "at_once"]

# One byte names a part: reads of one byte from a pipe are never torn between two workers.
_NAMES = string.ascii_letters + string.digits
_END = "."
# Whoever opens its standard output by name opens a worker's file anew, and may empty it.
_OPENS_BY_NAME = re.compile(r"/dev/(?:stdout|stderr|fd/[12])|/proc/[\w$-]+/fd/[12]")
# With fewer, the files cost more than they save.
_FEWEST = 6
_MOST_WORKERS = 4
# Room for one program at work; Nix's are the largest.
_WORKER_KIB = 96 * 1024

_PROGRAM = r"""
{show}
pn_part() {{ case $1 in
{cases}
esac; }}
pn_all={names}
# How many at once: processors, and memory that is free.
pn_workers=(/sys/devices/system/cpu/cpu[0-9]*) pn_workers=${{#pn_workers[@]}} pn_free=0
while read -r pn_key pn_value _; do [[ $pn_key == MemAvailable: ]] && pn_free=$pn_value && break; done </proc/meminfo
((pn_workers <= pn_free / {worker_kib})) || pn_workers=$((pn_free / {worker_kib}))
((pn_workers <= {most})) || pn_workers={most}
# A here-string of bash 5.0 is a file without a name that root alone can open.
pn_fds= pn_outputs=() pn_compat=${{BASH_COMPAT-}} pn_tmpdir=${{TMPDIR-}} BASH_COMPAT=5.0
[[ -w /run ]] && TMPDIR=/run
while ((pn_workers > 1 && ${{#pn_outputs[@]}} < pn_workers + {tables})); do
  pn_fd= && exec {{pn_fd}}<<<'' && [[ -f /proc/self/fd/$pn_fd ]] || {{ pn_workers=1; break; }}
  pn_outputs+=("$pn_fd")
done 2>/dev/null
if [[ -n $pn_compat ]]; then BASH_COMPAT=$pn_compat; else unset BASH_COMPAT; fi
if [[ -n $pn_tmpdir ]]; then TMPDIR=$pn_tmpdir; else unset TMPDIR; fi
if ((pn_workers > 1)) && exec {{pn_queue}}<> <(:); then
  pn_fds="${{pn_outputs[*]}} $pn_queue"
  {begin}
  printf '%s' "$pn_all" >&"$pn_queue"
  for pn_output in "${{pn_outputs[@]}}"; do
    printf '{end}' >&"$pn_queue"
    while IFS= read -r -N 1 -u "$pn_queue" pn_name && [[ $pn_name != '{end}' ]]; do
      pn_part "$pn_name"
    done >"/proc/self/fd/$pn_output" &
  done
  wait
  cat "${{pn_outputs[@]/#//proc/self/fd/}}"
else
  {table}
  while IFS= read -r -N 1 pn_name && [[ $pn_name != $'\n' ]]; do pn_part "$pn_name"; done <<<"$pn_all"
fi
"""


# Who waits for the table reads a pipe that nobody writes to: it ends with the process that asks, however
# that ends.
_BEGIN_TABLE = r"""
  pn_table=${pn_outputs[-1]}; unset 'pn_outputs[-1]'
  exec {pn_told}< <(
    exec {pn_kept}>&1 >"/proc/self/fd/$pn_table" 2>/dev/null </dev/null
    for pn_fd in $pn_fds; do exec {pn_fd}<&-; done
    pn_show_units
  )
  pn_fds+=" $pn_told"
"""
_TABLE = "mapfile -t pn_units < <(pn_show_units 2>/dev/null </dev/null)"
#: Bash, at the beginning of a part that reads the table: gives it as the array ``pn_units``.
TAKE_TABLE = r"""[[ -z ${pn_told-} ]] || { read -r -N 1 -u "$pn_told" _; mapfile -t pn_units <"/proc/self/fd/$pn_table"; }"""


def at_once(parts: Sequence[str], *, table: str = "") -> str:
    """Return a script that runs all `parts`; what each prints stays together, in any order.

    :param parts: bash commands that may count on ``pn_fds``, the descriptors that are not theirs.
        Those that begin with :data:`TAKE_TABLE` come last.
    :param table: defines ``pn_show_units``, which prints the table of units.
    """
    by_name = any(_OPENS_BY_NAME.search(part) for part in parts)
    if by_name or not _FEWEST <= len(parts) <= len(_NAMES):
        return "\n".join((table, _TABLE if table else "", "pn_fds=", *parts))
    names = _NAMES[: len(parts)]
    cases = "\n".join(f"{name})\n{part}\n;;" for name, part in zip(names, parts, strict=True))
    return _PROGRAM.format(
        cases=cases,
        names=names,
        end=_END,
        most=_MOST_WORKERS,
        worker_kib=_WORKER_KIB,
        show=table,
        tables=1 if table else 0,
        begin=_BEGIN_TABLE if table else "",
        table=_TABLE if table else "",
    )
