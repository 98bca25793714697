"""Waivers and profiles that a host declares for itself."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from pytest_nixos.errors import CatalogueError
from pytest_nixos.standards.waivers import declared_profiles, declared_waivers, find_waiver
from tests.unit.standards.samples import host_config

WAIVER = {"control": "AUD-001", "reason": "r", "owner": "ops", "expires": "2027-03-31"}


def host(**said: Any) -> Any:
    return host_config(options={"passthru.pytest-nixos": said})


def test_a_host_waives_for_itself_alone() -> None:
    waivers = declared_waivers(host(waivers=[WAIVER]), "web[1]", {"AUD-001"})
    found = find_waiver(waivers, "AUD-001", "web[1]")
    assert found is not None
    assert found.expires == dt.date(2027, 3, 31)
    assert find_waiver(waivers, "AUD-001", "web1") is None
    assert find_waiver(waivers, "AUD-002", "web[1]") is None


def test_a_host_that_says_nothing_waives_nothing() -> None:
    assert declared_waivers(host_config(), "web", {"AUD-001"}) == ()
    assert declared_waivers(host(bootBudget=4), "web", {"AUD-001"}) == ()
    assert declared_profiles(host_config()) == ()


@pytest.mark.parametrize(
    ("waivers", "words"),
    [
        ({"control": "AUD-001"}, "is no list of waivers"),
        (["AUD-001"], "is no list of waivers"),
        ([{**WAIVER, "control": "AUD-999"}], "AUD-999: control: is not known"),
        ([{**WAIVER, "expires": "soon"}], "expires"),
        ([{**WAIVER, "expire": "2027-03-31"}], "has no field expire"),
        ([{name: value for name, value in WAIVER.items() if name != "reason"}], "lacks reason"),
        ([WAIVER, WAIVER], "is waived twice"),
    ],
)
def test_what_is_no_waiver_is_refused(waivers: object, words: str) -> None:
    with pytest.raises(CatalogueError, match=words) as caught:
        declared_waivers(host(waivers=waivers), "web", {"AUD-001"})
    assert caught.value.message.startswith("web: passthru.pytest-nixos.waivers: ")


def test_profiles_are_told() -> None:
    assert declared_profiles(host(profiles=["hardened", "stig"])) == ("hardened", "stig")
