"""doas: what each account may really do, by doas.conf(5). The cases were tried with OpenDoas 6.8.2
(``doas -C``).
"""

from __future__ import annotations

from functools import cache

import pytest

from pytest_nixos.backend_name import BackendName
from pytest_nixos.findings import Outcome
from pytest_nixos.observe.accounts.doas import doas_rights, read_rules
from pytest_nixos.observe.accounts.permission import AccountRights
from pytest_nixos.standards.judging.judge import Verdict, judge
from pytest_nixos.standards.load import load_catalogue
from tests.unit.observe.here import parsed
from tests.unit.standards.samples import host_config

_catalogue = cache(load_catalogue)
PASSWD = """\
root:x:0:0::/root:/bin/bash
toor:x:0:0::/root:/bin/bash
alice:x:1000:100::/home/alice:/bin/bash
bob:x:1001:100::/home/bob:/bin/bash
eve:x:1002:100::/home/eve:/bin/bash
"""
GROUP = "wheel:x:1:bob\nusers:x:100:\nops:x:200:eve\nremote:x:210:dom\n"
#: As NixOS writes them around what a host says.
WHEEL, ROOT = "permit setenv { SSH_AUTH_SOCK } :wheel", "permit nopass keepenv root"


def rights(*rules: str) -> list[AccountRights]:
    text = "\n".join(("# rules", WHEEL, *rules, ROOT))
    found = parsed(doas_rights(), f"=passwd\n{PASSWD}=group\n{GROUP}=rules\n{text}\n=complete\n")
    assert isinstance(found, list)
    return found


def verdict(
    control: str, found: list[AccountRights] | str | None, *, enable: bool = True
) -> Verdict:
    host = host_config(options={"security.doas.enable": enable})
    return judge(_catalogue().control(control), host, {"doas": found}, BackendName.VM)


def test_wheel_with_a_password_is_fine() -> None:
    assert [r.account for r in rights()] == ["bob"]
    for control in ("AUTH-031", "AUTH-032"):
        assert verdict(control, rights()).outcome is Outcome.PASSED, control


def test_everybody_without_a_password_is_seen() -> None:
    found = rights("permit nopass :users")
    for control in ("AUTH-031", "AUTH-032"):
        wrong = verdict(control, found)
        assert wrong.outcome is Outcome.FAILED, control
        assert "alice: ALL" in wrong.reason and "eve: ALL" in wrong.reason


def test_wheel_without_a_password_is_seen() -> None:
    wrong = verdict("AUTH-031", rights("permit nopass :wheel"))
    assert wrong.outcome is Outcome.FAILED and "bob: ALL" in wrong.reason
    assert verdict("AUTH-032", rights("permit nopass :wheel")).outcome is Outcome.PASSED


def test_the_last_rule_that_matches_decides() -> None:
    taken = rights("permit nopass alice", "deny alice")
    assert verdict("AUTH-031", taken).outcome is Outcome.PASSED
    asked = rights("permit nopass alice", "permit :users cmd /bin/x", "permit alice")
    assert verdict("AUTH-031", asked).outcome is Outcome.PASSED
    again = rights("deny alice", "permit nopass alice cmd reboot")
    assert "alice: reboot" in verdict("AUTH-031", again).reason
    # Only that command line is taken, and its arguments can be chosen otherwise.
    part = rights("permit nopass 1000", "deny alice cmd ls args -l")
    assert "alice: ALL" in verdict("AUTH-031", part).reason


@pytest.mark.parametrize(
    "rule",
    ["permit eve as root cmd bash", "permit :200 cmd /bin/sh args", 'permit "eve" as \\\n root'],
)
def test_all_of_root_by_a_shell_number_or_quotes(rule: str) -> None:
    wrong = verdict("AUTH-032", rights(rule))
    assert wrong.outcome is Outcome.FAILED and "eve: " in wrong.reason


@pytest.mark.parametrize(
    "rule",
    [
        "permit eve as postgres",
        "permit eve cmd su args postgres",
        "permit eve cmd su args -c true root",
        "permit eve cmd env args A=b true",
        "permit eve cmd sh args -c true",
        "permit eve cmd systemctl args restart x",
    ],
)
def test_one_command_or_another_account_is_not_all_of_root(rule: str) -> None:
    assert verdict("AUTH-032", rights(rule)).outcome is Outcome.PASSED


@pytest.mark.parametrize(
    "rule",
    [
        *(
            "as 0",
            "as toor",
            "cmd su",
            "cmd env",
            "cmd su args -",
            "cmd bash args -l",
            "cmd python3",
        ),
        *(
            "cmd su args - root",
            "cmd su args -s /bin/sh",
            "cmd env args -i bash",
            "cmd sudo args -i",
        ),
        *("cmd /run/wrappers/bin/su args -l root", "cmd busybox", "cmd sh args -s"),
    ],
)
def test_all_of_root_by_another_name(rule: str) -> None:
    wrong = verdict("AUTH-032", rights(f"permit eve {rule}"))
    assert wrong.outcome is Outcome.FAILED and "eve: " in wrong.reason


def test_a_comment_ends_with_its_line() -> None:
    wrong = verdict(
        "AUTH-031", rights("# for the backup \\", "permit nopass alice # \\", "deny eve")
    )
    assert wrong.outcome is Outcome.FAILED and "alice: ALL" in wrong.reason


@pytest.mark.parametrize(
    "rule",
    [
        *(
            "permit nopass setenv {PATH} alice",
            "permit nopass al\\\nice",
            "permit nopass \\\n alice",
        ),
        *("permit nopass 01000", "permit nopass alice#x", "permit nopass setenv { A=b -C } alice"),
        "permit nopass alice \\\n",
    ],
)
def test_what_doas_accepts_is_read(rule: str) -> None:
    assert "alice: ALL" in verdict("AUTH-031", rights(rule)).reason


def test_an_account_that_cannot_be_is_nobody() -> None:
    assert verdict("AUTH-031", rights("permit nopass alice\r")).outcome is Outcome.PASSED


def test_a_rule_about_somebody_whom_nobody_lists_is_told_under_its_name() -> None:
    found = rights("permit nopass :domain_admins", "permit ldapuser", "permit nopass 70000 as root")
    assert verdict("AUTH-031", found).reason.startswith("is :domain_admins: ALL, 70000: ALL")
    assert "ldapuser: ALL" in verdict("AUTH-032", found).reason
    member = rights("permit nopass :remote", "permit nopass dom cmd ls")
    assert "dom: ALL" in verdict("AUTH-032", member).reason
    taken = rights("permit nopass :domain_admins", "deny :domain_admins")
    assert verdict("AUTH-031", taken).outcome is Outcome.PASSED


def test_another_account_than_root_is_named() -> None:
    assert "alice: ALL as eve" in verdict("AUTH-031", rights("permit nopass alice as eve")).reason
    assert "alice: ALL as eve" in verdict("AUTH-031", rights("permit nopass alice as 1002")).reason
    rest = rights("permit nopass alice", "permit alice as root")
    assert "alice: ALL as another account" in verdict("AUTH-031", rest).reason
    assert (
        verdict("AUTH-031", rights("permit alice", "deny alice as eve")).outcome is Outcome.PASSED
    )


@pytest.mark.parametrize(
    "line",
    [
        *("permit", "permit nopass", "permit a b", "allow a", "permit a as", "permit a cmd"),
        *("permit a args x", "permit a as root as b", "permit setenv { A a", "deny nopass a"),
        *('permit "a" \\\n as root', "perm\\\nit a", "permit a cmd ls args nopass"),
        *("permit setenv { A { } a", "permit a \\", "permit setenv { A } setenv { B } a"),
        *("permit nopass persist a", "permit keepenv { a } x", 'permit "a', "permit 'a b'"),
    ],
)
def test_what_doas_refuses_is_not_read(line: str) -> None:
    assert read_rules(f"permit alice\n{line}\n") is None


def test_what_cannot_be_told_is_no_pass() -> None:
    text = f"=passwd\n{PASSWD}=group\n{GROUP}=rules\npermit\n=complete\n"
    assert parsed(doas_rights(), text) is None
    assert parsed(doas_rights(), f"=passwd\n{PASSWD}=rules\npermit a\n") is None
    no_accounts = "=passwd\n\n=group\n=rules\npermit nopass alice\n=complete\n"
    assert parsed(doas_rights(), no_accounts) is None
    assert verdict("AUTH-031", None).outcome is Outcome.FAILED
    lacking = parsed(doas_rights(), "", 3)
    assert isinstance(lacking, str)
    assert verdict("AUTH-032", lacking).outcome is Outcome.NOT_APPLICABLE
    off = verdict("AUTH-032", [], enable=False)
    assert off.outcome is Outcome.NOT_APPLICABLE and "does not use doas" in off.reason
