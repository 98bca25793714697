"""Who can change what a path leads to: its file, its directory, or one of those above it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from pytest_nixos.observe.text import whole

__all__ = ["READ_ACCOUNTS", "STAT_PATHS", "Accounts", "Entry", "parse_accounts", "parse_entries"]

#: Bash: who there is, as getent(1) tells it; `passwd` keeps the accounts. Where getent fails or
#: dies, or knows of no root, the probe ends: fewer accounts are no answer.
READ_ACCOUNTS = r"""
title passwd; passwd=$(getent passwd) || exit 5; printf '%s\n' "$passwd"
[[ $'\n'$passwd == *$'\n'*:*:0:* ]] || exit 5
title group; getent group || exit 5
"""
#: Bash: prints owner and mode of what stands in the array `paths`, of all that is above it, and of
#: what links among them lead to. One readlink and one stat for all. The probe ends where one of
#: them dies (they end with 1 where a path leads nowhere), and where there are too many paths.
STAT_PATHS = r"""
declare -A above=()
climb() {
  local at=$1
  while [[ $at == /* && -z ${above[$at]-} ]]; do
    above[$at]=1
    [[ $at == / ]] && break
    at=${at%/*} at=${at:-/}
  done
}
link() {
  [ "$2" = "$1" ] || { printf '%s\0%s\0' "$1" "$2"; climb "$2"; }
}
title links
plain=() odd=() reals=()
((${#paths[@]} <= 2000)) || exit 5
for path in "${paths[@]}"; do
  [[ $path == /* && $path != *$'\n'* ]] || continue
  climb "$path"
  # readlink -f answers where all but the last part exists. There -m says the same and never fails,
  # so that one program answers for all; but for links that lead nowhere.
  if [[ -e $path ]]; then plain+=("$path")
  elif [[ -L $path ]]; then odd+=("$path")
  elif [[ -d ${path%/*}/ ]]; then plain+=("$path"); fi
done
((${#plain[@]})) && mapfile -d '' -t reals < <(readlink -m -z -- "${plain[@]}")
if ((${#reals[@]} == ${#plain[@]})); then
  for at in "${!plain[@]}"; do link "${plain[at]}" "${reals[at]}"; done
else
  odd+=("${plain[@]}")
fi
for path in "${odd[@]}"; do
  if real=$(readlink -f -- "$path"); then link "$path" "$real"; elif (($? > 1)); then exit 5; fi
done
title entries
((${#above[@]})) && { stat --printf '%a %u %g %F\0%n\0' -- "${!above[@]}" || (($? == 1)) || exit 5; }
"""
#: Nobody writes there but Nix; who can is asked by controls of their own.
_STORE = "/nix/store/"
_STICKY, _GROUP, _OTHERS = 0o1000, 0o020, 0o002
#: More members than this are told by their group's name.
_FEW = 3


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """Owner and mode of one file, directory or link."""

    mode: int
    uid: int
    gid: int
    is_link: bool


class Accounts(msgspec.Struct, frozen=True, kw_only=True):
    """Who there is.

    :param uids: account to number.
    :param gids: account to the number of its own group.
    :param shells: account to login shell.
    :param homes: account to home directory.
    :param groups: group to its number and the accounts that it lists.
    """

    uids: Mapping[str, int]
    gids: Mapping[str, int]
    shells: Mapping[str, str]
    homes: Mapping[str, str]
    groups: Mapping[str, tuple[int, tuple[str, ...]]]

    def members(self, gid: int) -> frozenset[str]:
        """Return the accounts of a group, those whose own group it is among them."""
        listed = {m for number, names in self.groups.values() if number == gid for m in names}
        return frozenset(listed | {name for name, own in self.gids.items() if own == gid})

    def groups_of(self, account: str) -> frozenset[str]:
        """Return the names of the groups that an account is in."""
        own = self.gids.get(account)
        return frozenset(
            name
            for name, (number, members) in self.groups.items()
            if account in members or number == own
        )

    @property
    def has_root(self) -> bool:
        """Whether root is among them; without it nobody told who there is."""
        return 0 in self.uids.values()

    def is_root(self, name: str) -> bool:
        """Whether a name, a number, or a number after ``#``, is the superuser."""
        uid = self.uids.get(name, whole(name.removeprefix("#")))
        return name == "root" or uid == 0

    @property
    def names(self) -> Sequence[str]:
        """Accounts beside root. Members of groups that have no line of their own are among them:
        a domain's users are not always listed.
        """
        members = {name for _, names in self.groups.values() for name in names}
        return sorted(name for name in {*self.uids, *members} if self.uids.get(name) != 0)

    @property
    def persons(self) -> Sequence[str]:
        """Accounts that can log in, root left out; those of a domain or of systemd-homed, whose
        numbers are 60000 and above, are among them.
        """
        closed = re.compile(r".*/(nologin|false)")
        return sorted(
            name
            for name, uid in self.uids.items()
            if uid >= 1000 and name != "nobody" and not closed.fullmatch(self.shells.get(name, ""))
        )

    def writers(
        self,
        path: str,
        entries: Mapping[str, Entry],
        links: Mapping[str, str],
        *,
        owner: str = "root",
    ) -> Sequence[str]:
        """Say who beside root and `owner` can put something else where `path` leads.

        :param entries: as :data:`STAT_PATHS` printed them; what is not among them does not exist.
        :return: accounts, ``everybody``, or ``group NAME``; each with the place that lets it in.
        """
        found: dict[str, str] = {}
        for start in dict.fromkeys((path, links.get(path, path))):
            for who, where in self._of_chain(start, entries, owner):
                found.setdefault(who, where)
        return [f"{who} (by {where})" for who, where in found.items()]

    def _of_chain(
        self, path: str, entries: Mapping[str, Entry], owner: str
    ) -> Iterator[tuple[str, str]]:
        last = True
        for place in _upwards(path):
            entry = entries.get(place)
            if entry is None:
                continue
            if not (place + "/").startswith(_STORE) and not entry.is_link:
                # In a sticky directory nobody replaces what is another's, but may add to it.
                yield from ((who, place) for who in self._of_entry(entry, owner, may_add=last))
            last = last and entry.is_link

    def _of_entry(self, entry: Entry, owner: str, *, may_add: bool) -> Iterator[str]:
        trusted = {0, self.uids.get(owner, 0)}
        if entry.uid not in trusted:
            yield next((n for n, u in self.uids.items() if u == entry.uid), f"uid {entry.uid}")
        if entry.mode & _STICKY and not may_add:
            return
        if entry.mode & _OTHERS:
            yield "everybody"
        elif entry.mode & _GROUP and entry.gid != 0:
            others = sorted(
                name for name in self.members(entry.gid) if self.uids.get(name) not in trusted
            )
            names = [n for n, (gid, _) in self.groups.items() if gid == entry.gid]
            yield from (
                others if len(others) <= _FEW else [f"group {(names or [str(entry.gid)])[0]}"]
            )


def _upwards(path: str) -> Iterator[str]:
    """Yield a path and each directory above it."""
    while path.startswith("/"):
        yield path
        if path == "/":
            return
        path = path.rpartition("/")[0] or "/"


def parse_accounts(sections: Mapping[str, Sequence[str]]) -> Accounts:
    """Read what :data:`READ_ACCOUNTS` printed."""
    users = [
        fields
        for line in sections.get("passwd", ())
        if len(fields := line.split(":")) == 7 and whole(fields[2]) is not None
    ]
    groups = [
        fields
        for line in sections.get("group", ())
        if len(fields := line.split(":")) == 4 and whole(fields[2]) is not None
    ]
    return Accounts(
        uids={u[0]: int(u[2]) for u in users},
        gids={u[0]: int(u[3]) for u in users if whole(u[3]) is not None},
        shells={u[0]: u[6] for u in users},
        homes={u[0]: u[5] for u in users},
        groups={g[0]: (int(g[2]), tuple(n for n in g[3].split(",") if n)) for g in groups},
    )


def parse_entries(records: Mapping[str, str]) -> tuple[Mapping[str, Entry], Mapping[str, str]]:
    """Read what :data:`STAT_PATHS` printed: entries by path, and where links lead."""
    fields = records.get("entries", "").split("\0")
    entries = {}
    for facts, path in zip(fields[::2], fields[1::2], strict=False):
        words = facts.split(" ", 3)
        if len(words) == 4 and all(whole(word) is not None for word in words[:3]):
            entries[path] = Entry(
                mode=int(words[0], 8) if re.fullmatch("[0-7]{1,5}", words[0]) else 0,
                uid=int(words[1]),
                gid=int(words[2]),
                is_link=words[3] == "symbolic link",
            )
    ends = records.get("links", "").split("\0")
    return entries, dict(zip(ends[::2], ends[1::2], strict=False))
