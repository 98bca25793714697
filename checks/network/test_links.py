"""Links: networkd configured each one as the host gives it."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest

from pytest_nixos import Evidence, HostConfig, Machine, not_applicable

from .given import Link, gateways_apart, misnamed, read_links, read_netdevs, unmade

_LIST = "networkctl --json=short --no-pager list"
_NETDEVS = "grep -HsE '^(Name|Kind)=' /etc/systemd/network/*.netdev"
_JOURNAL = (
    "journalctl --boot --no-pager --quiet --output=cat --identifier=systemd-networkd --lines=500"
)
# How long a link may take once the boot has settled.
_CONFIGURING_S = 10.0
# This machine's kernel makes no link of that kind.
_LACKED = "Operation not supported"
_MOST = 3


@pytest.mark.nixos_control("NET-020")
@pytest.mark.nixos_rests_on("unit:systemd-networkd.service")
def test_networkd_configured_every_link(
    nixos_machine: Machine, nixos_host_config: HostConfig, nixos_evidence: Evidence
) -> None:
    networks = nixos_host_config.option("systemd.network.networks").value or {}
    netdevs = read_netdevs(nixos_machine.run(_NETDEVS).stdout_text)
    links = _settled(nixos_machine)
    nixos_evidence.expect("every link that is given is there and configured")
    nixos_evidence.observe({link.name: link.administrative_state for link in links})
    wrong = [
        *gateways_apart(networks, links),
        *misnamed(networks, links),
        *unmade(netdevs, networks, {link.name for link in links}),
    ]
    failed = [link.name for link in links if link.administrative_state == "failed"]
    said = nixos_machine.run(_JOURNAL).stdout_text.splitlines() if failed else []
    told = [one.what for one in wrong]
    if failed and any(line.endswith(_LACKED) for line in said):
        if not told:
            not_applicable(f"unknown: the kernel here makes no link that {', '.join(failed)} needs")
        failed = []
    if failed and not told:
        nixos_evidence.attach("journal of systemd-networkd", "\n".join(said))
        for name in failed:
            words = [line for line in said if line.startswith(f"{name}: ") and "ould not" in line]
            told.append(
                f"{name} failed: {'; '.join(dict.fromkeys(words[-_MOST:])) or 'see its journal'}"
            )
    nixos_evidence.remedy = "\n".join(one.mend for one in wrong)
    assert not told, "; ".join(told)


def _settled(machine: Machine) -> Sequence[Link]:
    """Return the links once none waits, or no longer is to be waited for."""
    deadline = machine.deadline(_CONFIGURING_S)
    while True:
        links = read_links(machine.run(_LIST).stdout_text)
        if links is None:
            not_applicable("unknown: the guest's networkctl does not tell its links")
        if deadline.expired or not any(link.waits for link in links):
            return links
        time.sleep(0.5)
