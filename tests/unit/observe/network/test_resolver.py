"""systemd-resolved: what it says of each link."""

from __future__ import annotations

from pytest_nixos.observe.network.resolver import Resolver, resolver
from tests.unit.observe.here import parsed

ANSWER = """\
=dns
Global: 192.0.2.1
Link 2 (eth0): 192.0.2.53
               2001:db8::53
Link 3 (wg0): 10.0.0.1
Link 4 (dummy0):
=dnssec
Global: allow-downgrade
Link 2 (eth0): yes
Link 3 (wg0): no
Link 4 (dummy0): no
=dnsovertls
Global: no
Link 2 (eth0): opportunistic
Link 3 (wg0): no
Link 4 (dummy0): no
=complete
"""


def test_each_link_with_a_server_has_settings_of_its_own() -> None:
    found = parsed(resolver(), ANSWER)
    assert isinstance(found, Resolver)
    assert found.everywhere.dnssec == "allow-downgrade"
    assert {name: link.dnssec for name, link in found.links.items()} == {
        "eth0": "true", "wg0": "false",
    }  # fmt: skip
    assert found.links["eth0"].servers == ("192.0.2.53", "2001:db8::53")
    assert found.links["eth0"].dns_over_tls == "opportunistic"


def test_what_did_not_answer_is_not_told() -> None:
    assert parsed(resolver(), "", 3) == "systemd-resolved does not run"
    assert parsed(resolver(), ANSWER.replace("=complete", "")) is None
