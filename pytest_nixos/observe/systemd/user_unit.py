"""Units of users: files that their managers refuse or ignore, units that failed, and links that
lead nowhere.

Three sources are looked at: units that the host declares for every user (``systemd.user.services``,
in ``/etc/systemd/user``), units that a user has at home (home-manager links them to
``~/.config/systemd/user``), and the managers that run now. A user without a session has no manager:
nothing of theirs runs, and nothing can have failed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pytest_nixos.observe.base import Probe, ProbeOutput
from pytest_nixos.observe.systemd.unit_file import UnitFileReport, parse_verify
from pytest_nixos.observe.text import NAMES, lines, names, whole

__all__ = ["UserUnits", "user_units"]

_MAX_BYTES = 131072
# Units of systemd's own package are as their authors ship them: only links to a generated unit are
# looked at.
_READ = f"""
command -v systemd-analyze >/dev/null || exit 127
declare -a own=() homes=(/root /home/*) at_home=()
# People whose home lies elsewhere.
while IFS=: read -r _ _ uid _ _ home _; do
  [[ $uid == [1-9]+([0-9]) && $home != /home/* ]] && (( uid >= 1000 && uid < 30000 )) && homes+=("$home")
done </etc/passwd
for home in "${{homes[@]}}"; do at_home+=("$home"/.config/systemd/user/*.*); done
for file in /etc/systemd/user/*.* "${{at_home[@]}}"; do
  [[ -f $file && $file != *@.* && $file == *.@(service|timer|socket|path|mount|target) ]] || continue
  [[ $file == /etc/systemd/user/* && $(readlink -f "$file") != */*-unit-*/* ]] && continue
  own+=("$file")
done
title count "${{#own[@]}}"
if (( ${{#own[@]}} )); then
  export SYSTEMD_LOG_TARGET=console SYSTEMD_LOG_COLOR=0
  # A user's manager wants a directory of its own, even to read files.
  XDG_RUNTIME_DIR=$(mktemp -d) || exit 1
  export XDG_RUNTIME_DIR
  title said
  timeout 120 systemd-analyze verify --user --man=no -- "${{own[@]}}" 2>&1 >/dev/null | head -c {_MAX_BYTES}
  rmdir "$XDG_RUNTIME_DIR"
fi
finished=$(systemctl show --value --property=FinishTimestampMonotonic)
for folder in /run/user/*; do
  [[ -S $folder/systemd/private ]] || continue
  uid=${{folder##*/}}
  name=$(id -nu "$uid") || continue
  began=$(systemctl show --value --property=ActiveEnterTimestampMonotonic "user@$uid.service")
  when=later
  [[ -e /var/lib/systemd/linger/$name ]] && when=boot
  [[ $began == [1-9]+([0-9]) && $finished == [1-9]+([0-9]) ]] && (( began <= finished )) && when=boot
  title manager "$name" "$when"
  XDG_RUNTIME_DIR=$folder timeout 30 setpriv --reuid="$uid" --regid="$(id -g "$uid")" --clear-groups \\
    systemctl --user list-units --state=failed --all --plain --no-legend --no-pager --full
done
title wants
places=(/etc/systemd/user /run/current-system/sw/share/systemd/user /etc/profiles/per-user/*/share/systemd/user
  /nix/var/nix/profiles/default/share/systemd/user)
for folder in /etc/systemd/user "${{homes[@]/%//.config/systemd/user}}"; do
  for wants in "$folder"/*.wants "$folder"/*.requires; do
    wanting=${{wants##*/}} wanting=${{wanting%.*}} there=no
    for place in "$folder" "${{places[@]}}"; do [ -e "$place/$wanting" ] && there=yes; done
    for unit in "$wants"/*; do printf '%s %s %s\n' "$there" "$wanting" "${{unit##*/}}"; done
  done
done
title dangling
for home in "${{homes[@]}}"; do
  find "$home" -maxdepth 4 -xdev -xtype l -lname '/nix/store/*' -print0 2>/dev/null | head -z -n 50 | {NAMES}
done
true
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class UserUnits:
    """Units of users.

    :param answered: whether ``systemd-analyze`` is there to ask.
    :param count: unit files that were looked at.
    :param report: what systemd says of them.
    :param managers: users whose manager runs now.
    :param failed: user and unit of each that failed.
    :param absent: unit to the targets that want it, of those that no target wants which is there.
    :param dangling: links from a home into the store whose goal is gone.
    :param of_the_boot: those of `managers` that the boot started: of users who linger or are logged in
        by the host itself, not by somebody who came later.
    """

    answered: bool
    count: int
    report: UnitFileReport
    managers: tuple[str, ...]
    failed: tuple[tuple[str, str], ...]
    dangling: tuple[str, ...]
    absent: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    of_the_boot: tuple[str, ...] = ()


def user_units(*, name: str = "user-units") -> Probe[UserUnits]:
    """Ask for the units of users."""
    return Probe(name=name, script=f"shopt -s extglob nullglob\n{_READ}", parse=_parse)


def _parse(output: ProbeOutput) -> UserUnits:
    parts = [(title.split(), text) for title, text in output.records]
    said_count = (words[1] for words, _ in parts if words[:1] == ["count"] and words[1:])
    count = whole(next(said_count, ""))
    said, wants, dangling = (
        "".join(text for words, text in parts if words == [title])
        for title in ("said", "wants", "dangling")
    )
    managers = {words[1]: text for words, text in parts if words[:1] == ["manager"] and words[1:]}
    report = parse_verify(said, answered=output.exit_status == 0)
    return UserUnits(
        answered=report.answered and count is not None,
        count=count or 0,
        report=report,
        managers=tuple(managers),
        of_the_boot=tuple(w[1] for w, _ in parts if w[:1] == ["manager"] and w[2:] == ["boot"]),
        failed=tuple(
            (user, line.split()[0]) for user, text in managers.items() for line in lines(text)
        ),
        dangling=tuple(names(dangling)),
        absent=_absent(wants),
    )


def _absent(text: str) -> Mapping[str, tuple[str, ...]]:
    found: dict[str, dict[str, bool]] = {}
    for line in lines(text):
        words = line.split(" ")
        if len(words) == len(("there", "wanting", "unit")):
            there, wanting, unit = words
            found.setdefault(unit, {})[wanting] = there == "yes"
    return {unit: tuple(by) for unit, by in found.items() if not any(by.values())}
