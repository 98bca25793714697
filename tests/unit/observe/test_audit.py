"""Audit rules as auditctl prints them, in either spelling."""

from __future__ import annotations

import pytest

from pytest_nixos.observe.audit import AUDIT_FACTS, missing_rules, parse_rule


def test_audit_rules_in_either_spelling_are_the_same() -> None:
    watch = parse_rule("-w /etc/passwd/ -p wa -k identity")
    loaded = parse_rule("-a always,exit -S all -F path=/etc/passwd -F perm=wa -F key=identity")
    assert watch == loaded
    assert parse_rule("-b 8192") is None
    assert parse_rule("-w 'unbalanced") is None


@pytest.mark.parametrize(
    ("loaded", "missing"),
    [
        (["-a always,exit -F arch=b64 -S mount -F auid>=1000 -F auid!=-1 -F key=k"], ["b32 mount"]),
        (["-a always,exit -F arch=b64 -S mount -F auid>=1000"], ["b64 mount", "b32 mount"]),
        (
            [
                f"-a always,exit -F arch={a} -S mount,umount -F auid>=1000 -F auid!=unset"
                for a in ("b64", "b32")
            ],
            [],
        ),
    ],
)
def test_wanted_system_calls_need_both_architectures_and_all_filters(
    loaded: list[str], missing: list[str]
) -> None:
    assert (
        missing_rules(loaded, syscalls=["mount"], filters=["auid>=1000", "auid!=unset"]) == missing
    )


def test_declared_audit_rules_are_found_in_another_spelling() -> None:
    declared = [
        "-a exit,always -F arch=b64 -S execve,chmod -k exec",
        "-w /etc/shadow -p wa",
        "-f 1",
    ]
    loaded = ["-a always,exit -F arch=b64 -S chmod,execve -F key=exec"]
    assert missing_rules(loaded, declared=declared) == ["-w /etc/shadow -p wa"]


def test_audit_status_in_old_and_new_spelling() -> None:
    parse = AUDIT_FACTS["status"].parse
    assert parse("enabled 1\nfailure 1\nloginuid_immutable 0 unlocked\n")["enabled"] == "1"
    assert parse("loginuid_immutable 1 locked\n")["loginuid_immutable"] == "1 locked"
