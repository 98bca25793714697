"""How an activation ended: whose fault a failed unit is, and what a refusal of the new system
says.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_nixos.generations import Announced, SwitchEnd, SwitchOutcome, UnitChanges, Verb

# As NixOS 26.05 says it (nixpkgs 473282).
INHIBITED = """\
Checking switch inhibitors...
There are changes to critical components of the system:

dbus-implementation : dbus -> broker

Switching into this system is not recommended.
You probably want to run 'nixos-rebuild boot' and reboot your system instead.

Pre-switch check 'switchInhibitors' failed
Pre-switch checks failed
"""


def ended(status: int, output: str = "", *, failed: str = "", unwell: str = "") -> SwitchOutcome:
    return SwitchOutcome(
        verb=Verb.SWITCH,
        toplevel="/nix/store/x",
        exit_status=status,
        output=output,
        announced=Announced(failed=tuple(failed.split())),
        observed=UnitChanges(),
        unwell_before=frozenset(unwell.split()),
    )


# switch-to-configuration ends with the number of an earlier error of the system: 1, 2 and 4 mean
# other things by themselves.
@pytest.mark.parametrize("status", [1, 2, 4, 11])
def test_a_refused_switch_is_told_in_its_own_words(status: int) -> None:
    outcome = ended(status, INHIBITED)
    assert outcome.end is SwitchEnd.REFUSED
    assert not outcome.switched
    assert "dbus-implementation : dbus -> broker" in outcome.refusal
    assert outcome.refusal.endswith("Pre-switch checks failed")
    assert "Checking" not in outcome.refusal
    assert outcome.refusal in outcome.meaning


def test_a_check_of_ones_own_is_quoted_too() -> None:
    outcome = ended(1, "curl: could not connect\nPre-switch check 'blog' failed\n")
    assert outcome.refusal == "curl: could not connect\nPre-switch check 'blog' failed"


@pytest.mark.parametrize(
    ("status", "output"),
    [
        (0, INHIBITED),  # NIXOS_NO_CHECK: it was switched all the same
        (1, "usage: switch-to-configuration"),
        (4, "a log line that says Pre-switch checks failed in passing"),
    ],
)
def test_other_ends_are_no_refusal(status: int, output: str) -> None:
    assert ended(status, output).refusal == ""
    assert ended(status, output).end is not SwitchEnd.REFUSED


@pytest.mark.parametrize(
    ("status", "failed", "unwell", "well"),
    [
        (0, "", "", True),
        (4, "old.service", "old.service", True),
        (4, "old.service new.service", "old.service", False),
        (4, "", "old.service", False),  # nobody says which: it may be a new one
        (2, "old.service", "old.service", False),
        (1, "", "", False),
    ],
)
def test_a_unit_that_had_failed_before_is_not_the_switchs_fault(
    status: int, failed: str, unwell: str, well: bool
) -> None:
    outcome = ended(status, failed=failed, unwell=unwell)
    assert outcome.ended_well is well
    assert (outcome.verdict == "done") is well


def test_the_verdict_names_the_units_that_are_its_fault() -> None:
    outcome = ended(4, failed="old.service new.service", unwell="old.service")
    assert outcome.verdict == "switched, and units failed: new.service"


@pytest.mark.parametrize(
    ("said", "before", "well"),
    [
        ("Activation script snippet 'setupSecrets' failed (1)", {"setupSecrets"}, True),
        ("Activation script snippet 'setupSecrets' failed (1)", set(), False),
        (
            (
                "Activation script snippet 'setupSecrets' failed (1)\n"
                "Activation script snippet 'users' failed (1)"
            ),
            {"setupSecrets"},
            False,
        ),
        ("it failed without a word", {"setupSecrets"}, False),
    ],
)
def test_a_snippet_that_failed_at_boot_is_not_the_switchs_fault(
    said: str, before: set[str], well: bool
) -> None:
    outcome = replace(ended(2, said), broken_before=frozenset(before))
    assert outcome.ended_well is well
    assert ("users" in outcome.verdict) is ("users" in said)


def test_what_had_failed_before_an_earlier_switch_is_not_this_ones_fault() -> None:
    outcome = ended(4, failed="dog.service new.service")
    assert outcome.failed == {"dog.service", "new.service"}
    assert outcome.but_for(["dog.service"]).verdict == "switched, and units failed: new.service"
    assert outcome.but_for(["dog.service", "new.service"]).verdict == "done"
