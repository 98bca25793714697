"""The rules that firewalld itself writes (`networking.firewall.backend = "firewalld"`, NixOS 25.11),
judged and tried with real packets.

It runs in the lab's network namespace, with a configuration and a system bus of its own.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from pytest_nixos.observe.firewall.opening import Decision
from tests.kernel.lab import Lab, Packet, missing_packages
from tests.kernel.pools import OWN
from tests.kernel.rulesets import packets
from tests.kernel.trial import compare

_PROGRAMS = {"firewalld": "firewalld", "firewall-cmd": "firewalld", "dbus-daemon": "dbus-daemon"}
_MISSING = missing_packages(_PROGRAMS) + ([] if Path("/etc/protocols").exists() else ["netbase"])

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces and raw sockets need root"),
    pytest.mark.skipif(bool(_MISSING), reason=f"missing: {', '.join(_MISSING)}"),
]

_BUS = """<busconfig><type>system</type><listen>unix:path={bus}</listen><auth>EXTERNAL</auth>
<policy context="default"><allow own="*"/><allow send_destination="*" eavesdrop="true"/>
<allow eavesdrop="true"/></policy></busconfig>"""
# As NixOS writes zones: what is not named falls to the default zone, that of eth0.
_ZONES = {
    "public": """<zone>
<interface name="eth0"/>
<service name="ssh"/><service name="dhcpv6-client"/>
<port port="8080" protocol="tcp"/><port port="1000-1010" protocol="udp"/>
<source-port port="53" protocol="udp"/>
<protocol value="esp"/>
<icmp-block name="timestamp-request"/>
<forward-port port="8123" protocol="tcp" to-port="80" to-addr="10.79.0.2"/>
<rule family="ipv4"><source address="10.1.0.0/16"/><port port="443" protocol="tcp"/><accept/></rule>
<rule family="ipv6"><source address="fd00:1::/32"/><reject/></rule>
<rule family="ipv4" priority="-5"><source address="10.77.0.9"/><port port="22" protocol="tcp"/><drop/></rule>
</zone>""",
    "lan": """<zone target="DROP">
<interface name="eth1"/>
<port port="443" protocol="tcp"/>
<rule><port port="53" protocol="udp"/><accept><limit value="1/h"/></accept></rule>
<masquerade/>
</zone>""",
    "friends": """<zone target="ACCEPT"><source address="203.0.113.0/24"/><source address="2001:db8:1::/48"/></zone>""",
}
# What `networking.firewall.backend = "firewalld"` makes of a host (nixpkgs,
# nixos/modules/services/networking/firewall-firewalld.nix).
_OF_NIXOS = {
    "nixos-fw-default": """<zone target="DROP">
<icmp-block-inversion/>
<icmp-block name="echo-request"/>
<port port="22" protocol="tcp"/><port port="8000-8010" protocol="tcp"/>
</zone>""",
    "trusted": """<zone target="ACCEPT"><interface name="eth1"/></zone>""",
}
_START = """
dbus-daemon --config-file={bus}.conf --fork --print-pid=3 3>{bus}.pid || exit
export DBUS_SYSTEM_BUS_ADDRESS=unix:path={bus}
firewalld --nofork --nopid --system-config {config} --log-file {config}/log </dev/null >{config}/out 2>&1 &
echo $! >{config}/pid
for ((tried = 0; tried < 300; tried++)); do
  [[ $(firewall-cmd --state 2>&1) == running ]] && exit
  kill -0 $! || break
  sleep 0.1
done
cat {config}/out {config}/log >&2
exit 1
"""


@pytest.fixture(scope="module", params=["nftables", "strict"])
def firewalld(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Lab]:
    """A lab whose host runs firewalld; ``strict`` also looks for forged senders the strict way."""
    filtering = "strict" if request.param == "strict" else "yes"
    with started(tmp_path_factory, _ZONES, default="public", filtering=filtering) as lab:
        yield lab


@contextlib.contextmanager
def started(
    tmp_path_factory: pytest.TempPathFactory,
    zones: Mapping[str, str],
    *,
    default: str,
    filtering: str = "yes",
) -> Iterator[Lab]:
    config, bus = tmp_path_factory.mktemp("firewalld"), tmp_path_factory.mktemp("bus") / "bus"
    bus.with_suffix(".conf").write_text(_BUS.format(bus=bus))
    (config / "zones").mkdir()
    (config / "firewalld.conf").write_text(
        f"DefaultZone={default}\nFirewallBackend=nftables\nIPv6_rpfilter={filtering}\n"
    )
    for name, text in zones.items():
        (config / "zones" / f"{name}.xml").write_text(f'<?xml version="1.0"?>\n{text}\n')
    with Lab() as lab:
        started = lab.load(_START.format(bus=bus, config=config))
        try:
            assert started.returncode == 0, started.stderr
            yield lab
        finally:
            lab.load(f"kill $(cat {config}/pid); kill $(cat {bus}.pid)")


@seed(20261129)
@settings(
    max_examples=15,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(tried=packets())
def test_its_rules_are_judged_as_the_kernel_does(firewalld: Lab, tried: tuple[Packet, ...]) -> None:
    firewalld.forget()
    trial = compare(firewalld, tried, of="firewalld")
    assert not trial.wrong, "\n".join(trial.wrong)
    # What a limit lets through is for nobody to say; the rest is.
    assert trial.unjudged < len(tried) / 4
    assert trial.accepted > 0
    assert trial.dropped > 0


def test_what_it_opens_is_told(firewalld: Lab) -> None:
    state = firewalld.observe()
    outside = state.ruleset.reach(interface="eth0", family="ip")
    told = {opening.what for opening in outside.openings() if opening.protocol == 6}
    assert {w.partition(",")[0].partition(" from")[0] for w in told} >= {
        "tcp 22",
        "tcp 443",
        "tcp 8080",
    }
    assert "tcp 8123, sent on to 10.79.0.2:80" in told
    inside = state.ruleset.reach(interface="eth1", family="ip")
    assert "tcp 443" in {opening.what for opening in inside.openings()}
    # All that the zone of friends sends is let in, and told; it is no default for others.
    friends = [o for o in outside.openings() if o.protocol == -1 and o.sources is not None]
    assert any("203.0.113.0/24" in o.what for o in friends)
    for family in ("ip", "ip6"):
        assert state.ruleset.default(family=family).decision is Decision.REFUSED
    stranger = Packet(link=0, protocol=6, source="10.77.0.9", destination=OWN[4][0], dport=22)
    firewalld.forget()
    assert firewalld.send([stranger]) == [False]


def test_a_host_of_nixos_is_as_it_declares(tmp_path_factory: pytest.TempPathFactory) -> None:
    with started(tmp_path_factory, _OF_NIXOS, default="nixos-fw-default") as lab:
        rules = lab.observe().ruleset
        for family in ("ip", "ip6"):
            opened = [str(span) for span in rules.open_ports("tcp", family=family)]
            assert opened == ["22", "8000-8010"]
            assert rules.refuses_by_default(family=family)
        assert "eth1" in rules.trusted_interfaces
        assert rules.accepts_ping
        # IPv6 by a rule, IPv4 by the kernel, which the module sets.
        assert not rules.has_reverse_path_filter
        lab.load("echo 1 > /proc/sys/net/ipv4/conf/all/rp_filter")
        assert lab.observe().ruleset.has_reverse_path_filter
