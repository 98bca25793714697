"""The keys that a host declares for its users are such that sshd takes them."""

from __future__ import annotations

import pytest

from pytest_nixos import Evidence, HostConfig, Machine, not_applicable

from .keys import unusable

# Where NixOS puts them, a file for each user (nixos/modules/services/networking/ssh/sshd.nix).
_READ = r"""
for file in /etc/ssh/authorized_keys.d/*; do
  [ -f "$file" ] || continue
  while IFS= read -r line || [ -n "$line" ]; do printf '%s\t%s\n' "${file##*/}" "$line"; done <"$file"
done
"""
_SHOWN = 40


@pytest.mark.nixos_control("SSH-027")
def test_every_declared_key_is_one(
    nixos_host_config: HostConfig, nixos_machine: Machine, nixos_evidence: Evidence
) -> None:
    users = [u.name for u in nixos_host_config.users.values() if u.enabled and u.authorized_keys]
    if not users:
        not_applicable("the host declares no key for a user")
    lines = [
        (user, text)
        for line in nixos_machine.run(_READ).stdout_text.splitlines()
        for user, _, text in [line.partition("\t")]
        if user in users
    ]
    unread = sorted(set(users) - {user for user, _ in lines})
    if not lines:
        not_applicable(f"unknown: no file of keys could be read for {', '.join(users)}")
    nixos_evidence.expect(dict.fromkeys(users, "keys that sshd takes"))
    wrong = [f"{user}: {_short(text)} {why}" for user, text in lines if (why := unusable(text))]
    wrong += [f"{user}: has no file of keys on the machine" for user in unread]
    nixos_evidence.observe(wrong)
    assert not wrong, "; ".join(wrong)


def _short(text: str) -> str:
    return f'"{text[:_SHOWN]}..."' if len(text) > _SHOWN else f'"{text}"'
