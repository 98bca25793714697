"""Declared people can log in: PAM opens a session for each, and their shell is there."""

from __future__ import annotations

import pytest

from pytest_nixos import Evidence, HostConfig, Machine, not_applicable

# The service that login(1) asks PAM for: account and session, without a password. What it says of a
# refusal is in the journal; 224 is EXIT_PAM of systemd.exec(5). An account that has expired is to be
# refused (shadow(5), the eighth field, in days).
_OPEN = r"""
today=$(($(date +%s) / 86400))
while IFS= read -r user; do
  expires=$(getent shadow -- "$user" | cut -d: -f8)
  state=open
  [[ $expires =~ ^[0-9]+$ ]] && ((expires <= today)) && state=expired
  shell=$(getent passwd -- "$user" | cut -d: -f7)
  there=there
  [[ -x ${shell:-/bin/sh} ]] || there=missing
  timeout 60 systemd-run --quiet --collect --pipe --wait --service-type=exec --uid="$user" \
    --unit="pytest-nixos-session-$$-$SRANDOM" \
    --property=PAMName=login --property=WorkingDirectory=-~ -- true </dev/null >/dev/null 2>&1
  printf '%s\t%s\t%s\t%s\t%s\n' "$user" "$?" "$state" "$there" "$shell"
done
"""
_ENDS = {"0": "", "224": "PAM refuses it", "124": "it does not open within a minute"}


@pytest.mark.nixos_control("AUTH-036")
def test_every_declared_person_can_open_a_session(
    nixos_host_config: HostConfig, nixos_machine: Machine, nixos_evidence: Evidence
) -> None:
    people = sorted(u.name for u in nixos_host_config.users.values() if u.is_normal and u.enabled)
    if not people:
        not_applicable("the host declares no normal user")
    nixos_evidence.expect(dict.fromkeys(people, "a session, with the shell that is declared"))
    # Each may take what a user's manager and home take to start.
    seen = nixos_machine.run(
        _OPEN, stdin="\n".join([*people, ""]).encode(), timeout_s=120 + 60 * len(people)
    )
    found = [line.split("\t") for line in seen.stdout_text.splitlines()]
    told = {words[0]: _told(*words[1:]) for words in found if len(words) == 5}
    unread = [user for user in people if user not in told]
    if unread:
        not_applicable(f"unknown: nothing was read about {', '.join(unread)}")
    nixos_evidence.observe({user: said or "a session" for user, said in told.items()})
    wrong = [f"{user}: {said}" for user, said in told.items() if said]
    assert not wrong, "; ".join(wrong)


def _told(status: str, state: str, there: str, shell: str) -> str:
    """Return what is wrong with a session, ``""`` for nothing."""
    opened = status == "0"
    if state == "expired":
        return "the account has expired, and a session opens" if opened else ""
    problems = [] if opened else [_ENDS.get(status) or f"no session: exit status {status}"]
    if there == "missing":
        problems.append(f"its shell {shell} is not there")
    return ", ".join(problems)
