"""What a host is called, and whom to ask about it."""

import re

import pytest


@pytest.mark.nixos_control("ACME-002")
def test_the_name_says_what_it_is(nixos_host_config, nixos_evidence):
    # What is declared; no machine is started for it.
    nixos_evidence.expect("lower case words with dashes between")
    name = nixos_evidence.observe(nixos_host_config.host_name)
    assert re.fullmatch(r"[a-z]+(-[a-z0-9]+)*", name), f"the host is called {name!r}"


@pytest.mark.nixos_control("ACME-003")
def test_the_owner_is_told_at_login(host, nixos_evidence):
    nixos_evidence.expect("owner: somebody")
    text = nixos_evidence.observe(host.file("/etc/motd").content_string)
    assert "owner:" in text, "/etc/motd names no owner"
