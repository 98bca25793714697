"""The OSCAL report: NIST's assessment results, version 1.1, as JSON."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Sequence
from typing import Any

from pytest_nixos.findings import Finding, Outcome
from pytest_nixos.local.text import one_line, printable_lines
from pytest_nixos.report.facts import RunFacts

__all__ = ["write_oscal"]

Json = Any
_OSCAL = "1.1.2"
# Properties of our own stand in a namespace of their own, as OSCAL asks.
_NAMESPACE = "urn:pytest-nixos:oscal"
_ROOT = uuid.uuid5(uuid.NAMESPACE_URL, _NAMESPACE)
_MOST = 2000


def write_oscal(findings: Sequence[Finding], run: RunFacts) -> str:
    """Write one assessment result: an observation for each finding, and a finding where it was judged
    or should have been.

    Identifiers follow from run, host and control, so that the same run gives the same document.
    Evidence is named by its SHA-256; the JSON report holds it. A waived control is not satisfied,
    and says that it is waived.
    """
    seed = f"{run.started_at} {' '.join(run.hosts)}"
    plan = _id(seed, "plan")
    judged = [f for f in findings if f.outcome is not Outcome.NOT_APPLICABLE]
    result: dict[str, Json] = {
        "uuid": _id(seed, "result"),
        "title": "NixOS hosts as their flake declares them",
        "description": f"pytest-nixos {run.plugin_version}; fails on {run.fail_on} and worse.",
        "start": run.started_at,
        "local-definitions": {
            "inventory-items": [
                {
                    "uuid": _id(seed, "host", host),
                    "description": _text(f"NixOS host {host}"),
                    "props": [_prop("host", host), _prop("release", facts.get("release"))],
                }
                for host, facts in run.hosts.items()
            ]
        },
        "reviewed-controls": {"control-selections": [{"include-all": {}}]},
        "observations": [_observation(f, seed, run) for f in findings],
        "findings": [_finding(f, seed) for f in judged],
    }
    # OSCAL allows no empty lists.
    for name in ("observations", "findings"):
        if not result[name]:
            del result[name]
    if not run.hosts:
        del result["local-definitions"]
    document = {
        "assessment-results": {
            "uuid": _id(seed, "document"),
            "metadata": {
                "title": "Assessment results of pytest-nixos",
                "last-modified": run.started_at,
                "version": run.plugin_version,
                "oscal-version": _OSCAL,
            },
            "import-ap": {"href": f"#{plan}"},
            "results": [result],
            "back-matter": {
                "resources": [
                    {
                        "uuid": plan,
                        "title": "The selected profile of pytest-nixos",
                        "description": "The controls of this run; there is no separate assessment plan.",
                    }
                ]
            },
        }
    }
    return json.dumps(document, indent=1, ensure_ascii=True) + "\n"


def _observation(finding: Finding, seed: str, run: RunFacts) -> Json:
    evidence = json.dumps(
        [finding.expected, finding.observed, dict(finding.attachments)], sort_keys=True, default=str
    )
    digest = hashlib.sha256(evidence.encode()).hexdigest()
    return {
        "uuid": _id(seed, "observation", finding.host, finding.control, finding.node_id),
        "title": _line(f"{finding.control} on {finding.host}: {finding.title}"),
        "description": _text(finding.why or finding.reason or finding.title),
        "props": [
            _prop("outcome", finding.outcome.value),
            _prop("severity", finding.severity.name),
            _prop("judged-on", finding.judged_on),
            *(_prop("where", place.words) for place in finding.places),
        ],
        "methods": ["EXAMINE" if finding.judged_on in ("config", "nothing") else "TEST"],
        "types": ["finding"],
        **(
            {
                "subjects": [
                    {"subject-uuid": _id(seed, "host", finding.host), "type": "inventory-item"}
                ]
            }
            if finding.host in run.hosts
            else {}
        ),
        "relevant-evidence": [
            {
                "description": "What was expected and observed, by the digest of its canonical JSON.",
                "props": [_prop("sha256", digest)],
            }
        ],
        "collected": run.started_at,
    }


def _finding(finding: Finding, seed: str) -> Json:
    passed = finding.outcome is Outcome.PASSED
    reason = {Outcome.PASSED: "pass", Outcome.FAILED: "fail"}.get(finding.outcome, "other")
    status: dict[str, Json] = {
        "state": "satisfied" if passed else "not-satisfied",
        "reason": reason,
    }
    if reason == "other":
        status["remarks"] = _text(f"{finding.outcome.value}: {finding.reason or 'not judged'}")
    found: dict[str, Json] = {
        "uuid": _id(seed, "finding", finding.host, finding.control, finding.node_id),
        "title": _line(f"{finding.control} on {finding.host}"),
        "description": _text(finding.title),
        "props": [
            _prop(f"reference-{name}", one)
            for name, ids in sorted(finding.references.items())
            for one in ids
        ],
        "target": {
            "type": "objective-id",
            "target-id": finding.control.lower(),
            "status": status,
        },
        "related-observations": [
            {
                "observation-uuid": _id(
                    seed, "observation", finding.host, finding.control, finding.node_id
                )
            }
        ],
    }
    if not found["props"]:
        del found["props"]
    if not passed and finding.remedy:
        found["remarks"] = _text(finding.remedy)
    return found


def _id(*parts: str) -> str:
    # OSCAL wants versions 4 and 5; version 5 is the one that follows from a name.
    return str(uuid.uuid5(_ROOT, "\0".join(parts)))


def _prop(name: str, value: object) -> Json:
    return {"name": name, "ns": _NAMESPACE, "value": _line(str(value or "unknown"))}


def _line(text: str) -> str:
    return one_line(text).strip()[:_MOST].strip() or "unknown"


def _text(text: str) -> str:
    return printable_lines(text).strip()[:_MOST] or "unknown"
