"""The kind about the audit subsystem: its state, and rules that are wanted and not loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.observe.audit import AUDIT_FACTS, missing_rules
from pytest_nixos.observe.base import Probe
from pytest_nixos.observe.fact import fact_probe
from pytest_nixos.standards.control.seen import Seen, Sight, Unseen
from pytest_nixos.standards.kinds.facts import chosen_fact
from pytest_nixos.standards.kinds.kind import TEXT, TEXTS, Kind, Parameter, Parameters

__all__ = ["KINDS"]

Json = Any


def _audit_probe(_: Sequence[Parameters], __: HostConfig) -> Probe[Any]:
    return fact_probe("audit", AUDIT_FACTS, list(AUDIT_FACTS))


def _audit(values: Mapping[str, Json], parameters: Parameters, host: HostConfig) -> Sight:
    status = chosen_fact(values, "status", ())
    if isinstance(status, Unseen):
        return (
            status
            if parameters.get("declared")
            else Unseen(f"{status.reason}, so nothing is audited")
        )
    if "status" in parameters:
        return Seen(status.value.get(str(parameters["status"])))
    rules = chosen_fact(values, "rules", ())
    if isinstance(rules, Unseen):
        return rules
    if parameters.get("declared"):
        wanted = host.option("security.audit.rules").value
        wanted = wanted if isinstance(wanted, list) else []
        if not wanted:
            return Unseen("the host declares no audit rules", applicable=False)
        return Seen(missing_rules(rules.value, declared=[str(rule) for rule in wanted]))
    return Seen(
        missing_rules(
            rules.value,
            syscalls=parameters.get("syscalls", ()),
            filters=parameters.get("filters", ()),
            watches=parameters.get("watches", ()),
        )
    )


KINDS = (
    Kind(
        name="audit",
        reads="audit rules and state (`auditctl`)",
        probe=_audit_probe,
        find=_audit,
        parameters={
            "status": TEXT,
            "syscalls": TEXTS,
            "filters": TEXTS,
            "watches": TEXTS,
            "declared": Parameter(type="flag"),
        },
        options=lambda p: ("security.audit.rules",) if p.get("declared") else (),
    ),
)
