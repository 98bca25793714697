"""What a running NixOS of untouched defaults shows is no finding; what is worse than it is one."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_nixos.backend_name import BackendName
from pytest_nixos.findings import Outcome
from pytest_nixos.observe.systemd.journal import JOURNAL_FACTS
from pytest_nixos.standards.judging.applicability import inapplicable
from pytest_nixos.standards.judging.judge import judge
from pytest_nixos.standards.load import load_catalogue
from tests.unit.standards.samples import host_config

Json = Any
CATALOGUE = load_catalogue()


def outcome(control: str, seen: dict[str, Json]) -> Outcome:
    host = host_config()
    return judge(CATALOGUE.control(control), host, seen, BackendName.VM).outcome


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        # As nixpkgs' journald.nix writes it: journald bounds itself, journald.conf(5).
        ("Storage=persistent\nRateLimitInterval=30s\nRateLimitBurst=10000\n", Outcome.PASSED),
        ("Storage=persistent\nSystemMaxUse=2G\n", Outcome.PASSED),
        ("Storage=persistent\nSystemMaxUse=0\n", Outcome.FAILED),
        ("Storage=volatile\n", Outcome.FAILED),
    ],
)
def test_journald_bounds_itself(settings: str, expected: Outcome) -> None:
    read = JOURNAL_FACTS["settings"].parse(f"[Journal]\n{settings}")
    assert outcome("AUD-021", {"journal": {"settings": read}}) is expected


def test_services_that_their_module_gives_a_shell_may_have_it() -> None:
    def of(*accounts: str) -> Outcome:
        return outcome("AUTH-025", {"account": {"system-shells": list(accounts)}})

    assert of() is Outcome.PASSED
    assert of("postgres", "git") is Outcome.PASSED
    assert of("postgres", "backdoor") is Outcome.FAILED


def test_a_container_has_no_kernel_to_panic() -> None:
    control = CATALOGUE.control("RBK-015")
    host = host_config()
    assert inapplicable(control, host, BackendName.VM) is None
    assert "cannot be judged in a container" in str(
        inapplicable(control, host, BackendName.CONTAINER)
    )
