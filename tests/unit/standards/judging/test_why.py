"""The paragraph of a finding."""

from pytest_nixos.findings import Evidence
from pytest_nixos.place import How, Place
from pytest_nixos.standards.judging.why import page_of, why
from pytest_nixos.standards.load import load_catalogue
from pytest_nixos.subject import Subject

CONTROL = load_catalogue([]).control("SSH-001")
PLACE = Place(option="a.b", how=How.SET, file="web.nix", line=3, priority="mkForce")
HOST = Place(option="", how=How.HOST, file="flake.nix", line=1)


def test_declared_true_maker_and_risk_are_told_in_this_order() -> None:
    evidence = Evidence(
        expected="one of no", observed={"machine": "yes", "declared": "no"}, judged_on="both"
    )
    said = why(CONTROL, evidence, reason="is yes", places=(PLACE, HOST), blames=())
    assert said == (
        "Expected is one of no. Declared is no. True on the machine is yes."
        f" web.nix:3 sets a.b, by mkForce. What comes of it: {CONTROL.threat}"
    )


def test_what_is_broken_is_named_and_the_reason_stands_in() -> None:
    said = why(
        CONTROL,
        Evidence(),
        reason="does not answer",
        places=(),
        blames=(Subject.parse("unit:sshd.service"),),
    )
    assert said.startswith("does not answer. unit sshd.service makes it so. What comes of it")


def test_long_values_are_cut() -> None:
    said = why(CONTROL, Evidence(observed=["x" * 5000]), reason="", places=(), blames=())
    assert len(said) < 500


def test_page_is_the_controls_own() -> None:
    assert page_of(CONTROL) == "controls/ssh.md#ssh-001"
