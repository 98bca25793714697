"""Files of /etc that are declared with a mode or an owner have them."""

from __future__ import annotations

import pytest

from pytest_nixos import Evidence, Machine, not_applicable

# Beside a file that is copied and not linked, NixOS keeps what its mode and owner are to be
# (nixos/modules/system/etc/etc.nix); a number is written with a plus sign.
_READ = r"""
shopt -s globstar nullglob dotglob
static=$(readlink -e /etc/static) || exit 3
for said in "$static"/**/*.mode; do
  mode= uid= gid= source=${said%.mode}
  [ -e "$source" ] && [ -r "$source.uid" ] && [ -r "$source.gid" ] || continue
  read -r mode <"$said"; read -r uid <"$source.uid"; read -r gid <"$source.gid"
  [[ $mode =~ ^[0-7]+$ ]] || continue
  path=/etc/${source#"$static"/}
  printf '%s\t%s\t%s\t%s\t%s\n' "$path" "$mode" "$uid" "$gid" "$(stat --format='%a %U %u %G %g' -- "$path")"
done
"""
_FIELDS = 5
_NO_STATIC = 3


@pytest.mark.nixos_control("FS-025")
def test_every_file_of_etc_is_whose_it_is_declared(
    nixos_machine: Machine, nixos_evidence: Evidence
) -> None:
    seen = nixos_machine.run(_READ)
    if seen.exit_status == _NO_STATIC:
        not_applicable(
            "/etc is not linked from /etc/static: an overlay (system.etc.overlay) has owners and modes in its image"
        )
    rows = [
        row for line in seen.stdout_text.splitlines() if len(row := line.split("\t")) == _FIELDS
    ]
    if not rows:
        not_applicable("no file of /etc is declared with a mode or an owner of its own")
    nixos_evidence.expect({path: f"{mode} {uid}:{gid}" for path, mode, uid, gid, _ in rows})
    wrong = {path: why for path, *rest in rows if (why := differing(*rest))}
    nixos_evidence.observe(wrong)
    nixos_evidence.remedy = "\n".join(
        f'# {path}: declare the account and the group that environment.etc."{path.removeprefix("/etc/")}" names, or name others'
        for path in wrong
    )
    assert not wrong, "; ".join(f"{path} {why}" for path, why in wrong.items())


def differing(mode: str, uid: str, gid: str, found: str) -> str:
    """Return what a file has in place of what is declared, ``""`` where it has that.

    :param uid: name, or number behind a plus sign; `gid` likewise.
    :param found: mode, owner's name and number, group's name and number; ``""`` if there is no
        file.
    """
    words = found.split(" ")
    if len(words) != _FIELDS:
        return "is not there"
    is_mode, owner, owner_id, group, group_id = words
    told = []
    if int(is_mode, 8) != int(mode, 8):
        told.append(f"has mode {is_mode}, declared {mode}")
    if uid.removeprefix("+") not in (owner, owner_id):
        told.append(f"belongs to {owner}, declared {uid}")
    if gid.removeprefix("+") not in (group, group_id):
        told.append(f"has the group {group}, declared {gid}")
    return " and ".join(told)
