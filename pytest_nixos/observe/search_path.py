"""Search paths: the directories in which root, the system's units and users look for programs, and
who else can put a program there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from pytest_nixos.observe.base import Probe, ProbeOutput
from pytest_nixos.observe.text import split_lines
from pytest_nixos.observe.writers import (
    READ_ACCOUNTS,
    STAT_PATHS,
    Accounts,
    Entry,
    parse_accounts,
    parse_entries,
)

__all__ = ["SearchPath", "search_paths"]

# Of each service systemd tells more than 200 properties, the dearest answer of a whole look. A PATH comes
# from `Environment=` alone, systemd.exec(5), and NixOS writes most of them as directories of the store:
# only services that have another one, or one whose name an escape or a specifier (%) may hide, are asked for.
# Where a file counts for more than one service, or nobody tells where files lie, all are asked for. A file
# that systemd has not read again counts as it is.
_LOOSE_UNITS = r"""
loose_units() {
  local line name found said; local -a folders=(); local -A named=()
  units=()
  said=$(timeout 20 busctl --system get-property org.freedesktop.systemd1 /org/freedesktop/systemd1 \
    org.freedesktop.systemd1.Manager UnitPath)
  [[ $said == 'as '*'"/'* && $said != *\\* ]] || { all_units; return; }
  while IFS= read -r -d '"' name; do [[ $name == /* && -d $name ]] && folders+=("$name"); done <<< "$said"
  ((${#folders[@]})) || { all_units; return; }
  found=$(
    LC_ALL=C grep -RHaE -D skip --include='*.service' --include='*.conf' \
      --exclude-dir='*.wants' --exclude-dir='*.requires' --exclude-dir='*.upholds' \
      "^[[:blank:]]*Environment[[:blank:]]*=(.*([\\]|%[^[:blank:]]*=)|(.*[\"'[:blank:]])?PATH=)" -- "${folders[@]}" |
      LC_ALL=C grep -avE '^/[^:]*:Environment="PATH=(/nix/store/[^]:"\%[:blank:][]+:?)+"$'
    printf '=%s' "${PIPESTATUS[*]}"
  )
  # Something cannot be read, or grep did not end by itself.
  [[ ${found##*=} == [01]' '[01] ]] || { all_units; return; }
  while IFS= read -r line; do
    case ${line%%:*} in
      '') continue;;
      /*/service.d/*.conf) all_units; return;;
      /*.service.d/*.conf) name=${line%%:*} name=${name%/*} name=${name##*/} name=${name%.d};;
      /*.service) name=${line%%:*} name=${name##*/};;
      /*.d/*.conf) continue;;
      *) all_units; return;;
    esac
    [[ $name == *.service && $name != *[@-].service ]] || { all_units; return; }
    [[ $name == *[!A-Za-z0-9:_.@-]* ]] && { all_units; return; }
    named[$name]=1
  done <<< "${found%=*}"
  units=("${!named[@]}")
}
all_units() {
  local first second
  units=()
  while read -r first second _; do
    [[ $first == *.service ]] || first=$second
    [[ $first == *.service ]] && units+=("$first")
  done < <(systemctl list-units --type=service --plain --no-legend --no-pager --full || echo '*.service')
}
"""

# What lies in the store is Nix's alone; units name hundreds of directories there, and each that is
# looked at costs a program. What every login gets is asked once for somebody who does not exist: his name and home stand for
# each user's. Nobody's own start files are run but root's.
_READ = (
    READ_ACCOUNTS
    + _LOOSE_UNITS
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
loose_units
id= user= environment= state= job=
while IFS= read -r line; do
  case $line in
    Id=*) id=${line#*=};; User=*) user=${line#*=};; Environment=*) environment=${line#*=};;
    ActiveState=*) state=${line#*=};; Job=*) job=${line#*=};;
    '') [[ $id == *.service && ($state != inactive || $job) && " $environment" =~ [\ \"]PATH=([^\ \"]*) ]] &&
        note "unit $id ${user:-root}" "${BASH_REMATCH[1]}"
      id= user= environment= state= job=;;
  esac
done < <(
  ((${#units[@]})) &&
    systemctl show --no-pager --property=Id,User,Environment,ActiveState,Job -- "${units[@]}"; echo
)
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
    return Probe(name=name, script=_READ, parse=_parse)


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
