"""sudo: what each account may really do, by the rules that sudo itself reads.

cvtsudoers(1), which comes with sudo, follows includes, expands aliases and prints JSON; sudoers(5)
says how its entries are read: of several that match, the last counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate

from pytest_nixos.observe.accounts.command_pattern import is_wild, may_name
from pytest_nixos.observe.accounts.permission import AccountRights, Permission
from pytest_nixos.observe.accounts.sudo_rules import SudoRules
from pytest_nixos.observe.base import Probe, ProbeOutput
from pytest_nixos.observe.filesystems.writers import (
    READ_ACCOUNTS,
    STAT_PATHS,
    Entry,
    parse_accounts,
    parse_entries,
)
from pytest_nixos.observe.text import read_json

__all__ = ["SudoRights", "sudo_rights"]

_READ = (
    r"""
[ -e /etc/sudoers ] || exit 3
convert=$(command -v cvtsudoers || ls /run/current-system/sw/bin/cvtsudoers) || exit 4
"""
    + READ_ACCOUNTS
    + r"""
title host; read -r host </proc/sys/kernel/hostname; printf '%s\n' "$host" "${host%%.*}"
title now; TZ=UTC0 printf '%(%Y%m%d%H%M%SZ)T\n' -1
title rules
rules=$("$convert" -e -f json /etc/sudoers) || exit 5
printf '%s\n' "$rules"
title marks
marks=$("$convert" -e -f sudoers /etc/sudoers) || exit 5
while IFS= read -r line; do
  [[ $line == Defaults* ]] && { line=${line:8:1}; printf '%s\n' "${line/ /-}"; }
done <<< "$marks"
declare -A commands=()
# A blank may be part of a program's name. What a directory holds counts, but in the store.
command_pattern='"command": *"(/[^"]*)"'
while IFS= read -r line; do
  [[ $line =~ $command_pattern ]] || continue
  command= first=1
  IFS=' ' read -ra words <<< "${BASH_REMATCH[1]//\\\\/\\}"
  for word in "${words[@]}"; do
    command+=${command:+ }$word
    ((first)) || [ -e "$command" ] || continue
    first=0 commands[$command]=1
    folder=${command%/*} name=${command##*/}
    [[ -z $name || $name == *[*?[]* ]] && [[ $folder != *[*?[]* ]] || continue
    [[ $(cd -P -- "$folder/" && pwd) == /nix/store/* ]] && continue
    for file in "$folder"/* "$folder"/.[!.]*; do commands[$file]=1; done
  done
done <<< "$rules"
paths=("${!commands[@]}")
"""
    + STAT_PATHS
    + "title complete\ntrue\n"
)
_NO_SUDO, _NO_CONVERTER = 3, 4
#: A wildcard in the name of a directory stands for whatever anybody makes.
_GLOB = re.compile(r"[*?\[][^/]*/")
_ANY = ("whoever has a directory of such a name",)


class SudoRights(AccountRights, frozen=True, kw_only=True):
    """What one account may do with sudo.

    :param remembers_min: minutes in which no password is asked for again; below 0 for ever.
    :param replaceable: commands that somebody beside root can change, each with who.
    :param unclear: commands of which nobody can tell what programs they are.
    """

    remembers_min: float
    replaceable: tuple[str, ...]
    unclear: tuple[str, ...] = ()


def sudo_rights(*, name: str = "sudo") -> Probe[Sequence[SudoRights] | str | None]:
    """Ask what each account but root may do with sudo, those that may do nothing left out.

    :return: probe of the rights; a text that says why the machine has none to ask for; ``None``
        where its answer cannot be read.
    """
    return Probe(name=name, script=_READ, parse=_parse)


def _parse(output: ProbeOutput) -> Sequence[SudoRights] | str | None:
    if output.exit_status == _NO_SUDO:
        return "the machine has no /etc/sudoers"
    if output.exit_status == _NO_CONVERTER:
        return "the machine has no cvtsudoers, so that nobody tells what its rules mean (sudo-rs?)"
    records = dict(output.records)
    if "complete" not in records:
        return None
    try:
        rules = read_json(records.get("rules", ""))
    except ValueError:
        return None
    if not isinstance(rules, dict):
        return None
    accounts = parse_accounts(output.sections)
    if not accounts.has_root:
        return None
    reader = SudoRules(
        rules=rules,
        marks=[line.strip() for line in output.sections.get("marks", ())],
        accounts=accounts,
        hosts=frozenset(records.get("host", "").split()),
        now=records.get("now", "").strip(),
    )
    may = {
        name: reader.permissions(name)
        for name in dict.fromkeys((*accounts.names, *reader.unlisted()))
    }
    entries, links = parse_entries(records)
    if "/" not in entries and any(_paths(p) for given in may.values() for p in given):
        return None
    return [
        SudoRights(
            account=name,
            in_wheel="wheel" in accounts.groups_of(name) or name == "%wheel",
            permissions=tuple(given),
            remembers_min=reader.remembered(name, given),
            replaceable=tuple(
                f"{place}: {', '.join(who)}"
                for place in dict.fromkeys(x for p in given for x in _places(p, entries))
                if (who := _ANY if _GLOB.search(place) else accounts.writers(place, entries, links))
            ),
            unclear=tuple(p.command for p in given if p.as_root and p.command.startswith("^")),
        )
        for name, given in may.items()
        if given
    ]


def _paths(permission: Permission) -> Sequence[str]:
    """Return what the program that runs as root may be called: a blank may be part of its name."""
    if not permission.as_root or not permission.command.startswith("/"):
        return []
    return list(accumulate(permission.command.split(" "), lambda before, word: f"{before} {word}"))


def _places(permission: Permission, entries: Mapping[str, Entry]) -> Iterator[str]:
    """Yield the program, or those in the directory, or those that the wildcard means."""
    for at, path in enumerate(_paths(permission)):
        if at == 0 or path in entries:
            yield path
        if path.endswith("/") or is_wild(path):
            yield from (entry for entry in entries if may_name(path, entry))
