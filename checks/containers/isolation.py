"""What separates a container's process 1 from its host, read on the host machine of the
container.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

NAMESPACES = ("pid", "mnt", "ipc", "uts", "net", "user")
_CANARY = "/run/pytest-nixos-canary"

# For each container one line: name, then key=value. What a container sees is tried in its own
# namespaces.
SCRIPT = f"""
: >{_CANARY}
bash -c 'exec -a pytest-nixos-canary sleep 60' &
canary=$!
while read -r name; do
  main=$(systemctl show --property=MainPID --value "container@$name.service")
  leader=
  for status in /proc/[0-9]*/status; do
    parent=; pid=
    while read -r key value _; do
      case $key in PPid:) parent=$value ;; Pid:) pid=$value ;; esac
    done <"$status" 2>/dev/null
    if [ -n "$main" ] && [ "$main" != 0 ] && [ "$parent" = "$main" ]; then leader=$pid; fi
  done
  printf '%s leader=%s' "$name" "$leader"
  if [ -n "$leader" ]; then
    for kind in {" ".join(NAMESPACES)}; do
      [ "$(readlink "/proc/$leader/ns/$kind")" = "$(readlink "/proc/$$/ns/$kind")" ] && shared=yes || shared=no
      printf ' %s=%s' "$kind" "$shared"
    done
    read -r _ outer _ <"/proc/$leader/uid_map"
    printf ' root=%s' "$outer"
    [ -e "/proc/$leader/root{_CANARY}" ] && file=seen || file=hidden
    nsenter --target "$leader" --pid --mount -- /bin/sh -c 'cat /proc/[0-9]*/cmdline 2>/dev/null' |
      tr '\\0' '\\n' | grep -qx pytest-nixos-canary && process=seen || process=hidden
    printf ' file=%s process=%s' "$file" "$process"
  fi
  printf '\\n'
done
kill "$canary"
rm -f {_CANARY}
"""


class Isolation(msgspec.Struct, frozen=True, kw_only=True):
    """How a container is separated.

    :param running: whether its process 1 was found.
    :param problems: in what it is not.
    """

    running: bool
    problems: tuple[str, ...]


def parse(text: str) -> Mapping[str, Isolation]:
    """Read what :data:`SCRIPT` printed, by container."""
    found = {}
    for line in text.splitlines():
        name, *words = line.split()
        facts = dict(word.partition("=")[::2] for word in words)
        found[name] = Isolation(running=bool(facts.get("leader")), problems=_problems(facts))
    return found


def _problems(facts: Mapping[str, str]) -> tuple[str, ...]:
    if not facts.get("leader"):
        return ()
    problems = [
        f"shares the host's {kind} namespace" for kind in NAMESPACES if facts.get(kind) != "no"
    ]
    if facts.get("root") == "0":
        problems.append("its root is the host's root")
    if facts.get("file") != "hidden":
        problems.append("sees the host's /run")
    if facts.get("process") != "hidden":
        problems.append("sees the host's processes")
    return tuple(problems)
