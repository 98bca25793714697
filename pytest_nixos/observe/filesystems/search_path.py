"""Search paths: the directories in which root, the system's units and users look for programs, and
who else can put a program there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from pytest_nixos.observe.base import Probe, ProbeOutput
from pytest_nixos.observe.filesystems.writers import (
    READ_ACCOUNTS,
    STAT_PATHS,
    Accounts,
    Entry,
    parse_accounts,
    parse_entries,
)
from pytest_nixos.observe.text import split_lines
from pytest_nixos.observe.unit_table import UnitQuery

__all__ = ["SearchPath", "search_paths"]

# What lies in the store is Nix's alone; units name hundreds of directories there, and each that is
# looked at costs a program. What every login gets is asked once for somebody who does not exist: his name and home stand for
# each user's. Nobody's own start files are run but root's.
_READ = (
    READ_ACCOUNTS
    + r"""
declare -A wanted=()
note() {  # note WHOSE PATH
  title path "$1"; printf '%s\n' "$2"
  local IFS=: part
  set -f; for part in $2; do [[ $part == /* && $part != /nix/store/* ]] && wanted[${part%/}]=1; done; set +f
}
bash=$(command -v bash)  # without PATH, env would look for it in /bin and /usr/bin
root=$(timeout 20 env -i HOME=/root USER=root LOGNAME=root TERM=dumb "$bash" -lc 'printf "PATH=%s\n" "$PATH"')
root=${root##*$'\n'}; [[ $root == PATH=* ]] || root=  # start files may print, too
root=${root#PATH=}
note root "$root"
if [ -r /etc/set-environment ]; then
  login=$(timeout 20 env -i HOME=/pytest-nixos-home USER=pytest-nixos-user LOGNAME=pytest-nixos-user \
    "$bash" -c '. /etc/set-environment; printf "PATH=%s\n" "$PATH"')
  login=${login##*$'\n'}; login=${login#PATH=}
  title path login; printf '%s\n' "$login"
  count=0
  while IFS=: read -r name _ uid _ _ home shell; do
    ((uid >= 1000)) && [[ $name != nobody && $shell != */nologin && $shell != */false ]] || continue
    ((count++ < 500)) || exit 5
    of_user=${login//pytest-nixos-user/$name}
    note "user $name" "${of_user//\/pytest-nixos-home/$home}"
  done <<< "$passwd"
fi
while IFS= read -r -d '' word; do
  [[ $word == PATH=* ]] && note manager "${word#PATH=}"
done < /proc/1/environ
id= user= environment=
for line in "${pn_units[@]}" ''; do
  case $line in
    Id=*) id=${line#*=};; User=*) user=${line#*=};; Environment=*) environment=${line#*=};;
    '') [[ $id == *.service && " $environment" =~ [\ \"]PATH=([^\ \"]*) ]] && note "unit $id ${user:-root}" "${BASH_REMATCH[1]}"
      id= user= environment=;;
  esac
done
paths=("${!wanted[@]}")
"""
    + STAT_PATHS
    + "title complete\ntrue\n"
)


class SearchPath(msgspec.Struct, frozen=True, kw_only=True):
    """One search path.

    :param whose: ``root``, ``user alice``, ``manager`` (of all units) or ``unit backup.service``.
    :param account: who runs what is found there.
    :param loose: what is wrong with its directories: each with who can write there.
    """

    whose: str
    account: str
    directories: tuple[str, ...]
    loose: tuple[str, ...]

    @property
    def is_of_system(self) -> bool:
        """Whether the system itself looks for programs there."""
        return not self.whose.startswith("user ")


def search_paths(*, name: str = "search-path") -> Probe[Sequence[SearchPath] | None]:
    """Ask for the search paths; ``None`` where the answer is cut short, or lacks root or ``/``."""
    asked = UnitQuery(services=True, properties=("User", "Environment"))
    return Probe(name=name, script=_READ, parse=_parse, units=asked)


def _parse(output: ProbeOutput) -> Sequence[SearchPath] | None:
    records = dict(output.records)
    if "complete" not in records or not records.get("path root", "").strip():
        return None
    accounts = parse_accounts(output.sections)
    entries, links = parse_entries(records)
    if not accounts.has_root or "/" not in entries:
        return None
    return tuple(_search_paths(records, accounts, entries, links))


def _search_paths(
    records: Mapping[str, str],
    accounts: Accounts,
    entries: Mapping[str, Entry],
    links: Mapping[str, str],
) -> Iterator[SearchPath]:
    for title, text in records.items():
        kind, _, whose = title.partition(" ")
        if kind != "path" or whose == "login":
            continue
        account = {"root": "root", "manager": "root"}.get(whose, whose.rpartition(" ")[2])
        directories = tuple("".join(split_lines(text)[:1]).split(":"))
        loose = []
        for directory in dict.fromkeys(directories):
            if not directory.startswith("/"):
                shown = directory or "(empty)"
                loose.append(f"{shown}: the directory in which it is started, whose ever that is")
                continue
            place = directory.rstrip("/") or "/"
            who = accounts.writers(place, entries, links, owner=account)
            loose += [f"{directory}: {', '.join(who)}"] if who else []
        yield SearchPath(
            whose=" ".join(whose.split()[:2]),
            account=account,
            directories=directories,
            loose=tuple(loose),
        )
