"""Somebody becomes root on a host whose accounts are declared as a whole."""

from __future__ import annotations

import pytest

from pytest_nixos import Evidence, HostConfig, Machine, not_applicable

from .more_than_a_password import more_than_a_password
from .way_to_root import declared_ways, elsewhere, remedy_of, wheel_of

# shadow(5): an entry that begins with another sign is a hash, or empty. Nothing else of it is printed.
_UNLOCKED = r"""
while IFS=: read -r user field _; do
  [[ $field == [*!]* ]] || printf '%s\n' "$user"
done </etc/shadow
grep -rqsE '^[^#]*NOPASSWD' /etc/sudoers && printf '=unasked\n'
"""


@pytest.mark.nixos_control("AUTH-045")
def test_somebody_becomes_root(
    nixos_host_config: HostConfig, nixos_machine: Machine, nixos_evidence: Evidence
) -> None:
    if why := elsewhere(nixos_host_config):
        not_applicable(why)
    seen = nixos_machine.run(_UNLOCKED).stdout_text.split()
    unlocked = set(seen) - {"=unasked"}
    ways = [*declared_ways(nixos_host_config, unlocked)]
    if "=unasked" in seen:
        ways.append("a rule of sudo asks for no password")
    nixos_evidence.expect("a password, a key or a rule by which somebody becomes root")
    nixos_evidence.observe(ways)
    wheel = wheel_of(nixos_host_config)
    nixos_evidence.remedy = remedy_of(wheel)
    if not ways and not wheel:
        not_applicable(
            "no member of wheel is declared"
        )  # NixOS itself asks for one, or for root's password
    if not ways and (more := more_than_a_password(nixos_machine, "sudo")):
        not_applicable(f"unknown: {more}")
    who = f"{', '.join(wheel)} of wheel"
    assert ways, (
        f"nobody becomes root: {who} has no password, root has no key, and no rule asks for none"
    )
