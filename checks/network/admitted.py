"""Sockets that listen, and that the service which is told to reach them may not write: their mode, that of
a folder above them, or a view of the file system in which they are not.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence

import msgspec

from pytest_nixos import Unit

__all__ = ["LOOK", "Refusal", "asked", "read_refusals", "remedy_of"]

#: Bash that reads main process and path, each up to a NUL, and tries as that process and in its view of the file
#: system to write the path. Of each refusal it prints process, path, ``denied`` or ``unseen``, the groups, and what
#: lies on the way with mode, owner and group.
LOOK = r"""
shell=$(readlink -f "$BASH"); setpriv=$(readlink -f "$(type -P setpriv)"); nsenter=$(type -P nsenter)
[ -x "$setpriv" ] && [ -n "$nsenter" ] || exit 0
while IFS= read -r -d '' pid && IFS= read -r -d '' path; do
  uid= gid= groups=()
  while read -r key _ value rest; do
    case $key in Uid:) uid=$value;; Gid:) gid=$value;; esac
  done <"/proc/$pid/status" || continue
  while IFS=$'\t' read -r key value; do [ "$key" = Groups: ] && read -ra groups <<<"$value"; done <"/proc/$pid/status"
  [ -n "$uid" ] && [ "$uid" != 0 ] && [ -S "$path" ] || continue
  in_view() { "$nsenter" --mount --target "$pid" -- "$@"; }
  in_view "$shell" -c 'true' 2>/dev/null || continue
  as=(--clear-groups); [ "${#groups[@]}" = 0 ] || as=(--groups "$(IFS=,; echo "${groups[*]}")")
  if ! in_view "$shell" -c '[ -S "$1" ]' look "$path"; then
    what=unseen
  elif in_view "$setpriv" --reuid "$uid" --regid "$gid" "${as[@]}" \
      "$shell" -c '[ -w "$1" ] && exit 0; exit 9' look "$path" 2>/dev/null; (( $? != 9 )); then
    continue
  else
    what=denied
  fi
  printf '%s\0%s\0%s\0' "$pid" "$path" "$what"
  step=$path steps=()
  while [ -n "$step" ]; do steps+=("$step"); step=${step%/*}; done
  stat --printf='%a %U %G %n\n' -- "${steps[@]}"
  printf '\0'
  for group in "$gid" "${groups[@]}"; do getent group "$group"; done | cut -d: -f1
  printf '\0'
done
"""
_TEMPORARY = re.compile(r"/(?:var/)?tmp/")


class _Step(msgspec.Struct, frozen=True):
    mode: int
    owner: str
    group: str
    path: str


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """A socket that a service cannot connect to.

    :param is_seen: whether it is there in the service's view of the file system.
    :param steps: the socket, and the folders above it.
    :param groups: those of the service's main process.
    """

    pid: str
    path: str
    is_seen: bool
    steps: tuple[_Step, ...]
    groups: frozenset[str]

    @property
    def closed(self) -> Sequence[_Step]:
        """What on the way is open to some group at most, and to none of the process's."""
        return [step for step in self.steps if not step.mode & self._needed(step)]

    def _needed(self, step: _Step) -> int:
        return 0o002 if step.path == self.path else 0o001

    def lets_group(self, step: _Step) -> bool:
        """Whether a step is open to its group."""
        return bool(step.mode & (self._needed(step) << 3))

    def told(self) -> str:
        """Why, as a clause."""
        if not self.is_seen:
            return "which is not in its view of the file system"
        closed = [s for s in self.closed if not self.lets_group(s) or s.group not in self.groups]
        where = ", ".join(f"{s.path} is {s.owner}:{s.group} {s.mode:04o}" for s in closed)
        return f"and may not: {where}" if where else "and may not"


def asked(pairs: Collection[tuple[str, str]]) -> bytes:
    """Return what :data:`LOOK` reads, of main processes and paths."""
    return "".join(f"{pid}\0{path}\0" for pid, path in sorted(pairs)).encode()


def read_refusals(printed: bytes) -> Iterator[Refusal]:
    """Read what :data:`LOOK` prints."""
    fields = printed.decode(errors="replace").split("\0")
    for pid, path, what, steps, groups in zip(*(fields[i::5] for i in range(5)), strict=False):
        rows = [line.split(" ", 3) for line in steps.splitlines()]
        yield Refusal(
            pid=pid,
            path=path,
            is_seen=what != "unseen",
            steps=tuple(_Step(int(r[0], 8) & 0o777, *r[1:]) for r in rows if len(r) == 4),
            groups=frozenset(groups.split()),
        )


def remedy_of(refusal: Refusal, client: Unit, servers: Mapping[str, Unit]) -> str:
    """Return module text that lets a service in, or what to do.

    :param client: the service.
    :param servers: those that have to do with the socket.
    """
    stem = client.name.removesuffix(".service")
    if not refusal.is_seen:
        private = (
            " and PrivateTmp= gives it a /tmp of its own" if _TEMPORARY.match(refusal.path) else ""
        )
        return (
            f"# {client.name} does not see {refusal.path}{private}: have the socket in a folder below /run"
            " (RuntimeDirectory of the service that listens)."
        )
    lines = []
    for step in refusal.closed:
        if refusal.lets_group(step) and step.group not in refusal.groups and step.group != "root":
            lines.append(_joined(client, stem, step.group))
        elif not refusal.lets_group(step):
            lines.append(_opened(refusal, step, servers))
    return "\n".join(dict.fromkeys(lines))


def _joined(client: Unit, stem: str, group: str) -> str:
    user = client.setting("Service", "User")[-1:]
    if user and not client.is_on("Service", "DynamicUser"):
        return f'users.users."{user[0]}".extraGroups = [ "{group}" ];'
    return f'systemd.services."{stem}".serviceConfig.SupplementaryGroups = [ "{group}" ];'


def _opened(refusal: Refusal, step: _Step, servers: Mapping[str, Unit]) -> str:
    names = [name.removesuffix(".service") for name in servers if name.endswith(".service")]
    if len(names) == 1 and step.path == refusal.path:
        return f'systemd.services."{names[0]}".serviceConfig.UMask = lib.mkForce "0007";'
    made = (
        servers[f"{names[0]}.service"].words("Service", "RuntimeDirectory")
        if len(names) == 1
        else ()
    )
    if step.path in {f"/run/{name}" for name in made}:
        return f'systemd.services."{names[0]}".serviceConfig.RuntimeDirectoryMode = lib.mkForce "0750";'
    return (
        f"# {step.path} is {step.mode:04o}: have what makes it open it to the group {step.group}."
    )
