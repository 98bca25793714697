"""Which units are the host's own to harden."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from msgspec.structs import replace

from checks.sandboxing.directives import declared_sandboxes, hardened_by_the_host
from checks.sandboxing.escape import forbidden
from checks.sandboxing.process import violations
from tests.unit.standards.samples import host_config, sample_unit

HARD = {
    "ProtectSystem": ("strict",),
    "ProtectHome": ("true",),
    "PrivateTmp": ("true",),
    "NoNewPrivileges": ("true",),
}


def test_what_nixpkgs_hardens_is_not_the_hosts_to_mend() -> None:
    units = {name: sample_unit(name, **HARD) for name in ("nscd.service", "notes.service")}
    units["plain.service"] = sample_unit("plain.service", PrivateTmp=("true",))
    host = host_config(units=units)
    sandboxes = declared_sandboxes(host)
    own = replace(host, own_services=frozenset({"notes.service", "plain.service"}))
    assert hardened_by_the_host(own, sandboxes) == ["notes.service"]
    # A release that does not tell whose it is: every one counts.
    assert hardened_by_the_host(host, sandboxes) == ["notes.service", "nscd.service"]


@pytest.mark.parametrize("on", ["true", "yes", "y", "t", "on", "1", "True"])
def test_every_word_of_systemd_for_on_counts_in_an_attempt_to_escape(on: str) -> None:
    assert forbidden({"NoNewPrivileges": (on,)}) == ["gain privileges by a setuid program"]
    # The last assignment counts.
    assert forbidden({"NoNewPrivileges": ("no", on)}) == ["gain privileges by a setuid program"]
    assert forbidden({"NoNewPrivileges": (on, "off")}) == []


@pytest.mark.parametrize("on", ["true", "yes", "y", "t", "on", "1", "True"])
def test_every_word_of_systemd_for_on_counts_on_the_process(on: str) -> None:
    word = SimpleNamespace(value="no")
    facts = cast(
        "Any", SimpleNamespace(no_new_privileges=False, protect_system=word, protect_home=word)
    )
    assert violations({"NoNewPrivileges": (on,)}, facts, writable=()) == ["NoNewPrivileges"]
