"""Declared people who have a password log in on a terminal, as at the console."""

from __future__ import annotations

import pytest

from pytest_nixos import Evidence, HostConfig, LoginRefused, Machine, NixosError, not_applicable

from .more_than_a_password import more_than_a_password

# Who has a password that opens the account (shadow(5): one that begins with "!" or "*" does not), and
# has not expired. Nothing else of an entry is printed.
_OPEN = r"""
today=$(($(date +%s) / 86400))
getent shadow | while IFS=: read -r user field _ _ _ _ _ expires _; do
  [[ -z $field || $field == [*!]* ]] && continue
  [[ $expires =~ ^[0-9]+$ ]] && ((expires <= today)) && continue
  printf '%s\n' "$user"
done
true
"""


@pytest.mark.nixos_control("AUTH-037")
def test_every_declared_person_with_a_password_can_log_in(
    nixos_host_config: HostConfig, nixos_machine: Machine, nixos_evidence: Evidence
) -> None:
    people = {u.name for u in nixos_host_config.users.values() if u.is_normal and u.enabled}
    wanted = sorted(people & set(nixos_machine.run(_OPEN).stdout_text.split()))
    if not wanted:
        not_applicable("no normal user of the host has a password that opens the account")
    nixos_evidence.expect(dict.fromkeys(wanted, "a login"))
    seen: dict[str, str] = {}
    wrong, untried = [], []
    for user in wanted:
        try:
            with nixos_machine.login(user) as terminal:
                seen[user] = f"a login, into {terminal.shell}"
        except LoginRefused as err:
            seen[user] = err.message
            wrong.append(err.message)
        except NixosError as err:
            seen[user] = f"unknown: {err.message}"
            untried.append(seen[user])
    nixos_evidence.observe(seen)
    if wrong:
        said = nixos_machine.run(
            "journalctl --boot --quiet --no-pager --lines=30 --identifier=login"
        )
        nixos_evidence.attach("journal of login", said.stdout_text)
        if more := more_than_a_password(nixos_machine, "login"):
            not_applicable(f"{more}: {'; '.join(wrong)}")
    assert not wrong, "; ".join(wrong)
    if untried:
        not_applicable("; ".join(untried))
