"""Homes that home-manager makes as a module of NixOS: whether each was activated, of which
generation it is, and what its links have become.

Read from home-manager's own ``nixos/default.nix`` (a service ``home-manager-USER`` runs the
generation's ``activate``), ``modules/lib-bash/activation-init.sh`` (the root
``~/.local/state/home-manager/gcroots/current-home``, below ``/nix/var/nix/gcroots/per-user`` before 2023) and
``modules/files.nix`` (every file below the generation's ``home-files`` is linked at the same place in
the home; one with the same content may stay).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pytest_nixos.observe.base import Probe, ProbeOutput
from pytest_nixos.observe.text import NAMES, names, pairs, whole

__all__ = ["Home", "homes"]

_READ = rf"""
shopt -s nullglob
for file in /etc/systemd/system/home-manager-*.service; do
  unit=${{file##*/}}
  user=$(systemctl show --property=User --value "$unit")
  home=$(getent passwd "$user" | cut -d: -f6)
  generation=$(sed -nE 's,^ExecStart=.* (/nix/store/[^ ]+).*$,\1,p' "$file" | tail -n 1)
  current=
  for link in "$home/.local/state/home-manager/gcroots/current-home" "/nix/var/nix/gcroots/per-user/$user/current-home"; do
    [[ -z $current && -L $link ]] && current=$(readlink -f "$link")
  done
  title state "$unit"
  systemctl show --property=ActiveState,SubState,Result,ExecMainStatus,ExecMainStartTimestampMonotonic "$unit"
  printf '%s=%s\n' User "$user" Home "$home" Generation "$generation" Current "$current"
  title files "$unit"
  files=$(readlink -e "$generation/home-files") || continue
  count=0
  while IFS= read -r -d '' path; do
    count=$((count + 1))
    target=$home/$path
    if [[ ! -e $target ]]; then
      [[ -L $target ]] && printf 'leads nowhere %s\0' "$path" || printf 'is missing %s\0' "$path"
    elif [[ $(readlink -f "$target") != "$(readlink -f "$files/$path")" ]] && ! cmp -s "$target" "$files/$path"; then
      printf 'is something else %s\0' "$path"
    fi
  done < <(cd "$files" && find . \( -type f -o -type l \) -printf '%P\0') | {NAMES}
  title complete "$unit"
done
title complete
true
"""
_WAYS = ("leads nowhere", "is missing", "is something else")


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """What home-manager has made of one home.

    :param unit: the service that activates it.
    :param state: the service's state and substate, ``inactive (dead)`` after it has run.
    :param result: how it ended, ``success`` before it has run too.
    :param has_run: whether it was started since the boot.
    :param generation: that the system names, ``""`` where its unit does not tell.
    :param current: that the home is of, ``""`` where none was ever activated.
    :param wrong: files of the generation that are not as it says: path to what is wrong.
    :param is_whole: whether all of it was read.
    """

    user: str
    unit: str
    state: str
    result: str
    has_run: bool
    generation: str
    current: str
    wrong: Mapping[str, str]
    is_whole: bool

    @property
    def problems(self) -> tuple[str, ...]:
        """What is not as the system says, in words."""
        found = []
        if self.state.startswith("failed") or self.result != "success":
            found.append(f"{self.unit} has failed: {self.result}")
        elif not self.has_run:
            found.append(f"{self.unit} has not run")
        if self.generation and self.current != self.generation:
            runs = self.current or "no generation"
            found.append(f"the home is of {runs}, not of {self.generation}")
        return (*found, *(f"{path} {how}" for path, how in sorted(self.wrong.items())))


def homes(*, name: str = "homes") -> Probe[tuple[Home, ...]]:
    """Ask for the homes that home-manager makes; none on a host without it."""
    return Probe(name=name, script=_READ, parse=_parse)


def _parse(output: ProbeOutput) -> tuple[Home, ...]:
    parts = {tuple(title.split()): text for title, text in output.records}
    units = [words[1] for words in parts if words[:1] == ("state",) and len(words) > 1]
    is_whole = ("complete",) in parts
    return tuple(
        _home(
            unit,
            pairs(parts["state", unit]),
            parts.get(("files", unit), ""),
            is_whole=is_whole and ("complete", unit) in parts,
        )
        for unit in units
    )


def _home(unit: str, said: Mapping[str, str], files: str, *, is_whole: bool) -> Home:
    wrong = {
        line.removeprefix(f"{way} "): way
        for line in names(files)
        for way in _WAYS
        if line.startswith(f"{way} ")
    }
    return Home(
        user=said.get("User", ""),
        unit=unit,
        state=f"{said.get('ActiveState', '')} ({said.get('SubState', '')})",
        result=said.get("Result", ""),
        has_run=bool(whole(said.get("ExecMainStartTimestampMonotonic", ""))),
        generation=said.get("Generation", ""),
        current=said.get("Current", ""),
        wrong=wrong,
        is_whole=is_whole,
    )
