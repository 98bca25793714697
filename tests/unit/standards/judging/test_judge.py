"""The judge: where a control is judged, and what becomes of what was not seen."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from pytest_nixos.backend_name import BackendName
from pytest_nixos.errors import CatalogueError
from pytest_nixos.findings import Outcome, Severity
from pytest_nixos.nix.config.declared import Declared, FileSystem
from pytest_nixos.observe.filesystems.mount import parse_mountinfo
from pytest_nixos.standards.control.expectation import NothingToCheckError, describe, mismatch
from pytest_nixos.standards.control.model import (
    Control,
    DeclaredSpec,
    Expectation,
    ObservedSpec,
    Operator,
    Quantifier,
    Remedy,
    Requirement,
)
from pytest_nixos.standards.control.seen import Seen
from pytest_nixos.standards.judging.judge import judge
from pytest_nixos.standards.load import load_catalogue
from pytest_nixos.standards.sources.flake_files import StoreScan
from tests.unit.standards.samples import host_config

Json = Any

DECLARED = DeclaredSpec(options=("boot.kernel.sysctl",), select=("kernel.sysrq",))
SYSRQ = Control(
    id="OUR-001",
    suite="ours",
    title="sysrq is off",
    severity=Severity.LOW,
    threat="It happens.",
    remedies=(Remedy(text="x = 1;"),),
    observed=ObservedSpec(kind="sysctl", parameters={"key": "kernel.sysrq"}),
    declared=DECLARED,
    expect=Expectation(op=Operator.EQ, value=0),
)
DECLARES_0 = {"boot.kernel.sysctl": {"kernel.sysrq": 0}}
DECLARES_16 = {"boot.kernel.sysctl": {"kernel.sysrq": 16}}


def seen(value: str | None) -> dict[str, object]:
    return {"sysctl": {"kernel.sysrq": value}}


def test_the_machine_decides() -> None:
    verdict = judge(SYSRQ, host_config(), seen("16"), BackendName.VM)
    assert (verdict.outcome, verdict.judged_on) == (Outcome.FAILED, "machine")
    assert verdict.reason == "is 16, expected equal to 0"
    assert (verdict.expected, verdict.observed) == ("equal to 0", "16")


def test_machine_and_config_that_agree_are_judged_on_both() -> None:
    verdict = judge(SYSRQ, host_config(options=DECLARES_0), seen("0"), BackendName.VM)
    assert (verdict.outcome, verdict.judged_on) == (Outcome.PASSED, "both")
    assert verdict.observed == {"machine": "0", "declared": 0}


@pytest.mark.parametrize("options", [{}, DECLARES_0])
def test_what_is_read_on_this_machine_is_no_word_of_a_guest(options: Json) -> None:
    control = msgspec.structs.replace(
        SYSRQ,
        observed=ObservedSpec(kind="store-scan", parameters={"fact": "secrets"}),
        expect=Expectation(op=Operator.EMPTY),
        declared=msgspec.structs.replace(DECLARED, expect=Expectation(op=Operator.EQ, value=0)),
    )
    scan = {"store-scan": StoreScan(paths=1, secrets=(), private_keys=())}
    verdict = judge(control, host_config(options=options), scan, BackendName.VM)
    assert (verdict.outcome, verdict.judged_on) == (Outcome.PASSED, "config")


def test_a_declaration_that_contradicts_a_right_machine_fails() -> None:
    verdict = judge(SYSRQ, host_config(options=DECLARES_16), seen("0"), BackendName.VM)
    assert (verdict.outcome, verdict.judged_on) == (Outcome.FAILED, "both")
    assert 'boot.kernel.sysctl."kernel.sysrq" is 16' in verdict.reason


def test_a_falsified_value_is_judged_on_the_config_and_says_so() -> None:
    control = msgspec.structs.replace(SYSRQ, falsified_in=frozenset({BackendName.CONTAINER}))
    verdict = judge(control, host_config(options=DECLARES_0), seen("16"), BackendName.CONTAINER)
    assert (verdict.outcome, verdict.judged_on) == (Outcome.PASSED, "config")
    assert "judged on the evaluated config, because a container falsifies" in verdict.reason


def test_a_falsified_value_without_declaration_is_not_applicable() -> None:
    control = msgspec.structs.replace(
        SYSRQ, falsified_in=frozenset({BackendName.VM}), declared=None
    )
    verdict = judge(control, host_config(), seen("0"), BackendName.VM)
    assert (verdict.outcome, verdict.judged_on) == (Outcome.NOT_APPLICABLE, "nothing")
    assert "the evaluated config does not say it" in verdict.reason


def test_a_value_that_the_started_machine_changed_is_judged_on_the_config() -> None:
    changed = {"boot.kernel.sysctl": (DECLARES_0["boot.kernel.sysctl"], {"kernel.sysrq": 1})}
    host = host_config(options=DECLARES_0, changed=changed)
    verdict = judge(SYSRQ, host, seen("1"), BackendName.VM)
    assert (verdict.outcome, verdict.judged_on) == (Outcome.PASSED, "config")
    assert "this machine was started with another boot.kernel.sysctl" in verdict.reason


def test_a_change_that_makes_no_difference_leaves_the_machine_to_decide() -> None:
    changed = {"boot.kernel.sysctl": ({"kernel.sysrq": 0}, {"kernel.sysrq": 0, "other": 1})}
    host = host_config(options=DECLARES_0, changed=changed)
    assert judge(SYSRQ, host, seen("16"), BackendName.VM).outcome is Outcome.FAILED


@pytest.mark.parametrize("observations", [{}, {"sysctl": {}}, seen(None)])
def test_what_was_not_seen_fails(observations: dict[str, object]) -> None:
    for options in ({}, DECLARES_0):
        verdict = judge(SYSRQ, host_config(options=options), observations, BackendName.VM)
        assert verdict.outcome is Outcome.FAILED
        assert verdict.reason


def test_an_option_that_the_release_lacks_is_not_applicable() -> None:
    control = msgspec.structs.replace(SYSRQ, observed=None)
    verdict = judge(control, host_config(), {}, BackendName.VM)
    assert (verdict.outcome, verdict.reason) == (
        Outcome.NOT_APPLICABLE,
        "NixOS 25.11 has no option boot.kernel.sysctl",
    )


def test_an_option_that_cannot_be_evaluated_fails() -> None:
    control = msgspec.structs.replace(SYSRQ, observed=None)
    unreadable = Declared(path="boot.kernel.sysctl", state="unreadable")
    host = msgspec.structs.replace(host_config(), options={unreadable.path: unreadable})
    verdict = judge(control, host, {}, BackendName.VM)
    assert verdict.outcome is Outcome.FAILED
    assert "cannot be evaluated" in verdict.reason


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"applies_to": frozenset({BackendName.SSH})},
            "cannot be judged in a vm (applies to: bare-metal)",
        ),
        ({"since": "26.05"}, "applies from NixOS 26.05 on, and this host is 25.11"),
        ({"until": "24.05"}, "applies up to NixOS 24.05, and this host is 25.11"),
        ({"manual": "people decide"}, "judged by hand: people decide"),
        ({"judged_as": "OTHER-001"}, "judged as OTHER-001"),
    ],
)
def test_what_does_not_apply_says_why(changes: dict[str, Json], reason: str) -> None:
    verdict = judge(
        msgspec.structs.replace(SYSRQ, **changes), host_config(), seen("0"), BackendName.VM
    )
    assert (verdict.outcome, verdict.reason) == (Outcome.NOT_APPLICABLE, reason)
    assert verdict.judged_on == "nothing"


def test_a_requirement_that_the_host_does_not_meet_says_so() -> None:
    requirement = Requirement(
        declared=DeclaredSpec(options=("services.x.enable",)),
        expect=Expectation(op=Operator.EQ, value=True),
        reason="the host does not run x",
    )
    control = msgspec.structs.replace(SYSRQ, requires=(requirement,))
    for options in ({}, {"services.x.enable": False}):
        verdict = judge(control, host_config(options=options), seen("0"), BackendName.VM)
        assert (verdict.outcome, verdict.reason) == (Outcome.NOT_APPLICABLE, requirement.reason)
    host = host_config(options={"services.x.enable": True})
    assert judge(control, host, seen("0"), BackendName.VM).outcome is Outcome.PASSED


def test_nothing_to_check_is_never_a_pass() -> None:
    expect = Expectation(op=Operator.ABSENT, quantifier=Quantifier.EACH)
    control = msgspec.structs.replace(
        SYSRQ, observed=None, expect=expect, declared=DeclaredSpec(options=("a",), select=("*",))
    )
    verdict = judge(control, host_config(options={"a": {}}), {}, BackendName.VM)
    assert (verdict.outcome, verdict.reason) == (
        Outcome.NOT_APPLICABLE,
        "a.* nothing was there to check",
    )


def test_a_secret_never_reaches_the_verdict() -> None:
    control = msgspec.structs.replace(
        SYSRQ,
        observed=None,
        expect=Expectation(op=Operator.ABSENT),
        declared=DeclaredSpec(
            options=("users.users",), select=("root", "hashedPassword"), secret=True
        ),
    )
    options = {"users.users": {"root": {"hashedPassword": "$6$salt$hash"}}}
    verdict = judge(control, host_config(options=options), {}, BackendName.VM)
    assert verdict.outcome is Outcome.FAILED
    assert verdict.observed == "(set)"
    assert "salt" not in repr(verdict)


def test_as_declared_compares_with_the_option() -> None:
    control = msgspec.structs.replace(SYSRQ, expect=Expectation(op=Operator.AS_DECLARED))
    right = judge(control, host_config(options=DECLARES_16), seen("16"), BackendName.VM)
    wrong = judge(control, host_config(options=DECLARES_16), seen("0"), BackendName.VM)
    unset = judge(
        control, host_config(options={"boot.kernel.sysctl": {}}), seen("0"), BackendName.VM
    )
    assert [v.outcome for v in (right, wrong, unset)] == [
        Outcome.PASSED,
        Outcome.FAILED,
        Outcome.NOT_APPLICABLE,
    ]
    assert wrong.expected == "equal to 16"


def test_a_control_with_a_python_check_is_not_for_the_judge() -> None:
    with pytest.raises(CatalogueError, match="a Python check judges it"):
        judge(msgspec.structs.replace(SYSRQ, check=True), host_config(), seen("0"), BackendName.VM)


@pytest.mark.parametrize(
    ("op", "wanted", "holds", "holds_not"),
    [
        (Operator.EQ, 1, ["1", 1, " 1 ", "01"], ["2", "", "true"]),
        (Operator.EQ, "3 3 3 3", ["3\t3\t3\t3"], ["3 3 3"]),
        (Operator.EQ, True, [True, "true"], [False, "yes", 1]),
        (Operator.NE, "infinity", ["5"], ["infinity"]),
        (Operator.GE, 2, ["2", 3, "10"], ["1", "x", True, "-3"]),
        (Operator.BETWEEN, [1, 3], ["1", 3], ["0", 4, "x"]),
        (Operator.IN, ["a", 1], ["a", "1"], ["b", ""]),
        (Operator.NOT_IN, ["", "~"], ["AF_INET"], ["", "~"]),
        (Operator.CONTAINS, "b", ["abc", ["a", "b"]], ["acd", ["ab"]]),
        (Operator.CONTAINS_ALL, ["a", "b"], [["b", "a"], "a b", "a,b"], [["a"], "a"]),
        (Operator.CONTAINS_ANY, ["a", "b"], [["b", "c"]], [["c"], []]),
        (Operator.EXCLUDES, ["x"], [["a"], [], ""], [["x"], "a x"]),
        (Operator.SUBSET_OF, ["a", "b"], [["a"], []], [["a", "c"]]),
        (Operator.MATCHES, "^a", ["ab", ["x", "ab"], "x\nab"], ["ba", []]),
        (Operator.NOT_MATCHES, "^a", ["ba", ["b"]], ["ab", ["x", "ab"]]),
        (Operator.MODE_AT_MOST, "0640", ["640", "0600", "0"], ["644", "0641", "4640", "x"]),
        (Operator.LENGTH, 1, [["a"], {"a": 1}], [[], ["a", "b"]]),
        (Operator.EMPTY, None, [[], "", {}], [["a"], "x"]),
        (Operator.NOT_EMPTY, None, [["a"], "x"], [[], "", " "]),
    ],
)
def test_operators(op: Operator, wanted: Json, holds: list[Json], holds_not: list[Json]) -> None:
    expect = Expectation(op=op, value=wanted)
    assert [value for value in holds if mismatch(expect, value) is not None] == []
    assert [value for value in holds_not if mismatch(expect, value) is None] == []
    assert mismatch(expect, None) is not None
    assert describe(expect)


def test_only_absent_is_satisfied_by_nothing() -> None:
    for op in Operator:
        expect = Expectation(op=op, value=["x"] if op.value in ("in", "excludes") else "x")
        if op in (Operator.ANY_OF, Operator.ALL_OF, Operator.FIELDS):
            continue
        assert (mismatch(expect, None) is None) == (op is Operator.ABSENT), op


def test_quantifiers() -> None:
    each = Expectation(op=Operator.EQ, value=1, quantifier=Quantifier.EACH)
    some = Expectation(op=Operator.EQ, value=1, quantifier=Quantifier.ANY)
    assert mismatch(each, {"a": 1, "b": 1}) is None
    assert mismatch(each, {"a": 1, "b": 2}) == "b is 2, expected equal to 1"
    assert mismatch(some, {"a": 1, "b": 2}) is None
    assert str(mismatch(some, {"b": 2})).startswith("no member does")
    for expect in (each, some):
        with pytest.raises(NothingToCheckError):
            mismatch(expect, {})
        assert mismatch(expect, None) == "is not there"


def test_what_a_guest_says_stays_on_one_line_without_control_characters() -> None:
    reason = mismatch(Expectation(op=Operator.EQ, value="x"), "a\n\x1b[31mred\x00\r" + "y" * 1000)
    assert reason is not None
    assert "\n" not in reason and "\x1b" not in reason and "\x00" not in reason
    assert len(reason) < 400


def test_every_case_of_a_value_has_to_hold() -> None:
    from pytest_nixos.standards.control.model import Expectation, Operator
    from pytest_nixos.standards.judging.judge import _hold

    expect = Expectation(op=Operator.EQ, value="no")
    case = "user=alice addr=192.0.2.1"
    assert _hold(expect, Seen("no", cases={case: "no"})).outcome is Outcome.PASSED
    held = _hold(expect, Seen("no", cases={case: "yes"}))
    assert held.outcome is Outcome.FAILED
    assert case in held.reason
    # What is wrong for everybody is told as that.
    assert case not in _hold(expect, Seen("yes", cases={case: "yes"})).reason


def test_every_case_that_does_not_hold_is_named() -> None:
    from pytest_nixos.standards.control.model import Expectation, Operator
    from pytest_nixos.standards.judging.judge import _hold

    cases = {"interface a": "1", "interface b": "0", "interface c": "2"}
    held = _hold(Expectation(op=Operator.EQ, value="0"), Seen("0", cases=cases))
    assert "for interface a: is 1" in held.reason and "for interface c: is 2" in held.reason
    assert held.observed == {"everybody else": "0", "interface a": "1", "interface c": "2"}


@pytest.mark.parametrize(
    ("control", "words"),
    [
        ("SBX-002", "services that the host is there for"),
        ("SSH-021", "/etc/ssh/ssh_host_*_key"),
    ],
)
def test_where_nothing_was_there_it_is_said_what_was_looked_for(control: str, words: str) -> None:
    bundled = load_catalogue().control(control)
    assert bundled.observed is not None
    seen: dict[str, object] = {"unit-property": {}, "file": {"/etc/ssh/ssh_host_*_key": []}}
    verdict = judge(bundled, host_config(units={}), seen, BackendName.VM)
    assert verdict.outcome is Outcome.NOT_APPLICABLE
    assert verdict.reason.startswith("nothing was there to check: ")
    assert words in verdict.reason


def test_a_value_that_is_wrong_for_all_names_the_interfaces_that_keep_their_own() -> None:
    from pytest_nixos.standards.control.model import Expectation, Operator
    from pytest_nixos.standards.control.narrowed import narrowed
    from pytest_nixos.standards.judging.judge import _hold

    cases = {"interface eth0": "1", "interface eth1": "0"}
    held = _hold(Expectation(op=Operator.EQ, value="0"), Seen("1", cases=cases))
    assert held.observed == {"everybody": "1", "interface eth0": "1"}
    line = 'boot.kernel.sysctl."net.ipv4.conf.all.accept_redirects" = 0;'
    assert narrowed(line, held.observed).splitlines() == [line, line.replace("all", "eth0")]


@pytest.mark.parametrize(
    ("own_disks", "declared_disks", "judged_on"),
    [("judged", True, "both"), ("judged", False, "config"), ("falsified", True, "config"), ("", True, "config")],
)  # fmt: skip
def test_with_the_hosts_own_disks_a_vm_is_judged_where_a_control_says_so(
    own_disks: str, declared_disks: bool, judged_on: str
) -> None:
    control = msgspec.structs.replace(
        SYSRQ, falsified_in=frozenset({BackendName.VM}), own_disks=own_disks
    )
    host = host_config(options=DECLARES_0, own_disks=declared_disks)
    assert judge(control, host, seen("0"), BackendName.VM).judged_on == judged_on


def test_what_the_plugin_chose_for_the_hosts_disks_says_nothing_of_them() -> None:
    control = msgspec.structs.replace(SYSRQ, own_disks="falsified", declared=None)
    verdict = judge(control, host_config(own_disks=True), seen("16"), BackendName.VM)
    assert (verdict.outcome, verdict.judged_on) == (Outcome.NOT_APPLICABLE, "nothing")
    plain = judge(control, host_config(own_disks=False), seen("16"), BackendName.VM)
    assert plain.outcome is Outcome.FAILED


def test_mounts_of_a_vm_with_the_hosts_own_disks_are_held_against_what_it_has() -> None:
    control = load_catalogue(()).controls["FS-016"]
    entry = {"options": ("defaults",), "fs_type": "ext4"}
    systems = {
        point: FileSystem(mount_point=point, device=device, **{**entry, "options": options})  # type: ignore[arg-type]
        for point, device, options in (
            ("/data", "/dev/vda2", ("nodev",)),
            ("/usb", "/dev/vda3", ("nofail",)),
            ("/srv", "nas:/srv", ("defaults",)),
        )
    }
    has = {point: system for point, system in systems.items() if point != "/srv"}
    host = host_config(file_systems=systems, machine_file_systems=has, own_disks=True)

    def found(line: str) -> Outcome:
        return judge(
            control, host, {"mount-declared": parse_mountinfo([line])}, BackendName.VM
        ).outcome

    assert found("1 0 8:1 / /data rw,nodev - ext4 /dev/vda2 rw") is Outcome.PASSED
    assert found("1 0 8:1 / /data rw - ext4 /dev/vda2 rw") is Outcome.FAILED
    assert found("1 0 8:1 / /other rw,nodev - ext4 /dev/vda2 rw") is Outcome.FAILED
