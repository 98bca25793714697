"""Which units are the host's own to harden."""

from __future__ import annotations

from msgspec.structs import replace

from checks.sandboxing.directives import declared_sandboxes, hardened_by_the_host
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
