"""Conditions that can never hold."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from checks.units.conditions import impossible_conditions
from tests.unit.standards.samples import sample_unit


def told(key: str, value: str) -> list[tuple[str, str]]:
    unit = replace(sample_unit("app.service"), settings={"Unit": {key: (value,)}})
    return [(one.meant, one.remedy) for one in impossible_conditions(unit)]


@pytest.mark.parametrize(
    ("key", "value", "meant"),
    [
        ("ConditionArchitecture", "x86_64", "x86-64"),
        ("ConditionArchitecture", "aarch64", "arm64"),
        ("ConditionArchitecture", "!x86_64", "!x86-64"),
        ("ConditionVirtualization", "kmv", "kvm"),
        ("ConditionVirtualization", "|nspawn", "|systemd-nspawn"),
        ("AssertSecurity", "aparmor", "apparmor"),
    ],
)
def test_what_is_nearly_a_value_is_told(key: str, value: str, meant: str) -> None:
    ((found, remedy),) = told(key, value)
    assert found == meant
    assert remedy == f'systemd.services."app".unitConfig.{key} = lib.mkForce "{meant}";'


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("ConditionArchitecture", "x86-64"),
        ("ConditionArchitecture", "native"),
        ("ConditionVirtualization", "!container"),
        ("ConditionVirtualization", "|vm"),
        ("ConditionVirtualization", "zztop"),
        ("ConditionSecurity", "tpm2"),
        ("ConditionPathExists", "x86_64"),
        ("ConditionHost", "x86_64"),
        ("ConditionVirtualization", ""),
        ("ConditionVirtualization", "Yes"),
        ("Description", "x86_64"),
    ],
)
def test_other_conditions_are_left_alone(key: str, value: str) -> None:
    assert told(key, value) == []
