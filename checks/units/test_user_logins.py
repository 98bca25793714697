"""What a login starts for its user, and the managers of users who linger."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

import pytest

from pytest_nixos import (
    Evidence,
    HostConfig,
    Machine,
    NixosError,
    Observations,
    not_applicable,
    observe,
)

from .history import of_user
from .of_users import own_managers

# A manager that has started all it can is "running" or "degraded". What is between two tries of a start
# is told by its state alone.
_LOOK = r"""
timeout 90 systemctl --user is-system-running --wait >/dev/null
mapfile -t units < <(systemctl --user list-units --all --plain --no-legend --no-pager --full)
((${#units[@]})) || exit 3
for line in "${units[@]}"; do
  read -r unit _ active sub _ <<<"$line"
  case $active/$sub in
    failed/*) printf '%s has failed\n' "$unit" ;;
    */auto-restart*) printf '%s is started again and again\n' "$unit" ;;
  esac
done
printf 'looked\n'
"""
_FAILED = "%s has failed"
_LOGIN_S = 180.0
# What a test's machine lacks, and the user's own does not: names and networks of the world, devices.
_LACKED = (
    r"could(n't| not) resolve|failure in name resolution|no such host|network is unreachable|no route to host"
    r"|ENETUNREACH|EAI_AGAIN|/dev/[a-z0-9/]+: no such"
)
_ASK_LACKED = (
    "journalctl --boot --quiet --no-pager --output=cat --lines=60 _SYSTEMD_USER_UNIT={unit}"
    " _UID=$(id -u -- {user}) | grep -iE -m 1 -- {lacked}"
)
_TELL = "journalctl --boot --quiet --no-pager --lines=20 _UID=$(id -u -- '{user}')"


@pytest.mark.nixos_control("UNIT-014")
def test_a_login_starts_what_its_user_declares(
    nixos_host_config: HostConfig,
    nixos_machine: Machine,
    nixos_observations: Observations,
    nixos_place: str,
    nixos_evidence: Evidence,
) -> None:
    units = nixos_observations.of(observe.user_units())
    if not units.answered:
        not_applicable("unknown: the guest has no systemd-analyze to ask")
    people = [u for u in nixos_host_config.users.values() if u.enabled]
    lingering = sorted(u.name for u in people if u.lingers)
    wanted = sorted(u.name for u in people if u.is_normal) if units.count else []
    if not (lingering or wanted):
        not_applicable("the host declares no unit of a user, and nobody who lingers")
    nixos_evidence.expect("each manager runs what is declared, and nothing of it fails")
    wrong = {u: ["lingers, and has no manager"] for u in lingering if u not in units.managers}
    unknown: dict[str, str] = {}
    started = own_managers(units, nixos_place)
    for user in wanted:
        # Those that had failed without this session are UNIT-009's.
        known = {_FAILED % unit for of, unit in units.failed if of == user and of in started}
        said = [line for line in _look(nixos_machine, user, unknown) if line not in known]
        said = [line for line in said if not _lacks(nixos_machine, user, line, unknown)]
        if said:
            wrong.setdefault(user, []).extend(said)
            journal = nixos_machine.run(_TELL.format(user=user)).stdout_text
            nixos_evidence.attach(f"journal of {user}", journal)
    nixos_evidence.observe({"wrong": wrong, "sessions": wanted, "linger": lingering, **unknown})
    failed = {line.split(" ")[0] for said in wrong.values() for line in said if " " in line}
    nixos_evidence.blame("unit", *sorted(of_user(unit) for unit in failed if "." in unit))
    _judge(wrong, unknown)


def _look(machine: Machine, user: str, unknown: dict[str, str]) -> list[str]:
    """Return what is wrong with the units of a user's session."""
    try:
        *said, end = machine.as_user(user).run(_LOOK, timeout_s=_LOGIN_S).stdout_text.splitlines()
    except (NixosError, ValueError) as err:
        # No session at all is what AUTH-036 tells.
        unknown[user] = f"no session: {err}"
        return []
    if end != "looked":
        unknown[user] = "the manager does not answer"
    return said


def _lacks(machine: Machine, user: str, problem: str, unknown: dict[str, str]) -> bool:
    """Whether a unit failed for want of what the test's machine does not have."""
    unit, found, _ = problem.partition(" has failed")
    if not found:
        return False
    words = {name: shlex.quote(word) for name, word in {"unit": unit, "user": user}.items()}
    asked = machine.run(_ASK_LACKED.format(**words, lacked=shlex.quote(_LACKED)))
    if asked.succeeded:
        unknown[user] = f"{unit} needs what is not here: {asked.stdout_text.strip()[:200]}"
    return asked.succeeded


def _judge(wrong: Mapping[str, list[str]], unknown: Mapping[str, str]) -> None:
    told = [f"{user}: {problem}" for user, problems in wrong.items() for problem in problems]
    assert not told, "; ".join(told)
    if unknown:
        words = "; ".join(f"{user}: {why}" for user, why in unknown.items())
        not_applicable(f"unknown: {words}")
