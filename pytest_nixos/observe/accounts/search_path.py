"""Search paths: the directories in which root, the system's units and users look for programs, and
who else can put a program there.
"""

from __future__ import annotations

import re
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
from pytest_nixos.observe.systemd.bus import ASK_UNITS, SERVICE, ask_units, read_units
from pytest_nixos.observe.text import split_lines

__all__ = ["SearchPath", "search_paths"]

_OF_SERVICE = ("Environment", "User")
_PATH = re.compile(r"(?:^| )PATH=([^ ]*)")

# systemctl works out every property of a service, which takes longer than all the rest of this probe: systemd is asked
# for two of them, over its own bus. Environments may hold secrets and stay in the guest: of the answers each string
# with a "=" is blotted out, but PATH, in as many bytes as it has, so that what stands where remains true. A string
# of D-Bus follows a NUL, and so does the head of a message, which begins with "l" and its type, the first one with "OK"
# before it; up to three bytes may be the length of a string, and assign next to nothing. Where the bus does not answer,
# systemctl tells the same.
_READ_SERVICES = (
    ASK_UNITS
    + rf"""
services_of_bus() {{
  local LC_ALL=C index line
  local -a told=()
  [[ ${{services[*]}} != *'*'* ]] || return
  mapfile -d '' -t told < <(pn_ask_units {ask_units(_OF_SERVICE, interface=SERVICE)} -- "${{services[@]}}")
  wait $! || return
  for index in "${{!told[@]}}"; do
    case ${{told[index]}} in
      PATH=*) line=${{told[index]#PATH=}}; want "${{line%% *}}";;
      l[$'\2\3']* | 'OK '*) ;;
      *=*) ((${{#told[index]}} < 4)) || told[index]=${{told[index]//?/x}};;
    esac
  done
  title services; printf '%s\n' "${{services[@]}}"
  title answers; printf '%s\0' "${{told[@]}}"
}}
services_of_systemctl() {{
  local id= user= environment= line
  while IFS= read -r line; do
    case $line in
      Id=*) id=${{line#*=}};; User=*) user=${{line#*=}};; Environment=*) environment=${{line#*=}};;
      '') [[ $id == *.service && " $environment" =~ [\ \"]PATH=([^\ \"]*) ]] && note "unit $id ${{user:-root}}" "${{BASH_REMATCH[1]}}"
        id= user= environment=;;
    esac
  done < <(systemctl show --no-pager --property=Id,User,Environment -- "${{services[@]}}"; echo)
}}
services=()
while read -r first second _; do
  [[ $first == *.service ]] || first=$second
  [[ $first == *.service ]] && services+=("$first")
done < <(systemctl list-units --type=service --plain --no-legend --no-pager --full || echo '*.service')
((${{#services[@]}} == 0)) || services_of_bus || services_of_systemctl
"""
)

# What lies in the store is Nix's alone; units name hundreds of directories there, and each that is
# looked at costs a program. What every login gets is asked once for somebody who does not exist: his name and home stand for
# each user's. Nobody's own start files are run but root's.
_READ = (
    READ_ACCOUNTS
    + r"""
declare -A wanted=()
want() {  # want PATH
  local IFS=: part
  set -f; for part in $1; do [[ $part == /* && $part != /nix/store/* ]] && wanted[${part%/}]=1; done; set +f
}
note() {  # note WHOSE PATH
  title path "$1"; printf '%s\n' "$2"
  want "$2"
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
"""
    + _READ_SERVICES
    + """
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
    paths = _paths(output)
    if paths is None:
        return None
    accounts = parse_accounts(output.sections)
    entries, links = parse_entries(records)
    if not accounts.has_root or "/" not in entries:
        return None
    return tuple(_search_paths(paths, accounts, entries, links))


def _paths(output: ProbeOutput) -> Mapping[str, str] | None:
    """Return the search paths by whose they are, services with their account; ``None`` where systemd's answers
    about any of these cannot be read.
    """
    told = {title: "".join(split_lines(text)[:1]) for title, text in output.records}
    paths = {
        title.removeprefix("path "): text for title, text in told.items() if title[:5] == "path "
    }
    names = output.sections.get("services", ())
    services = read_units(dict(output.raw_records).get("answers", b""), names, _OF_SERVICE)
    if len(services) < len(names):
        return None
    for name, service in services.items():
        if found := _PATH.search(service["Environment"]):
            paths[f"unit {name} {service['User'] or 'root'}"] = found[1]
    return paths


def _search_paths(
    paths: Mapping[str, str],
    accounts: Accounts,
    entries: Mapping[str, Entry],
    links: Mapping[str, str],
) -> Iterator[SearchPath]:
    for whose, path in paths.items():
        if whose == "login":
            continue
        account = {"root": "root", "manager": "root"}.get(whose, whose.rpartition(" ")[2])
        directories = tuple(path.split(":"))
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
