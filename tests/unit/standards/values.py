"""Values that satisfy or violate an expectation."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pytest_nixos.standards.control.model import Expectation, Operator, Quantifier

__all__ = ["APPLICATION", "satisfying", "violating"]

Json = Any
APPLICATION = "app.service"

#: Texts that between them match every pattern of the catalogue.
TEXTS = (
    "x", "yes", "no", "1", "0", "0 1000000 65536", "true", "false", "x=y", "none", "|/bin/false", "audit_backlog_limit=8192",
    "iommu=force", "mitigations=auto,nosmt", "[integrity]", "10:30:60", "password=1", "nopti",
    "publickey,keyboard-interactive", "Authorised use only", "U.S. Government", "pam_wheel.so", "0.0.0.0/0",
    "/run/confinement/app.service", "hidepid=2", "25%", "10%", "regular file", "--delete-older-than 30d",
    "0123456789abcdef", "/dev/disk/by-uuid/1", "umask=0077", "1 locked", "queue/scheduler=mq-deadline",
    "image@sha256:" + "0" * 64, "no-new-privileges", "5m", "https://*", "--threads 4", "limit_req_zone x", "300s",
    "PollIntervalMaxSec=60", "ca-bundle.crt", "a 1\nb", "8080:80", "127.0.0.1:80:80", "/etc:/etc", "/srv:/srv", "seccomp=unconfined",
    "auth required pam_faillock.so preauth deny=3 fail_interval=900\nauth x pam_faillock.so authfail", "hmac-sha1",
    "host all all 0.0.0.0/0 trust", "/dev/sda1", "github:me/config", "/nix/store/x", "@x", "~x", "nanosecond heartbeat", "uint32 0",
)  # fmt: skip


def satisfying(expect: Expectation) -> Json:
    """Return a value for which `expect` holds."""
    if expect.quantifier is not Quantifier.WHOLE:
        return {APPLICATION: _satisfying(expect)}
    return _satisfying(expect)


def violating(expect: Expectation) -> Json:
    """Return a value for which `expect` does not hold, and which is there."""
    if expect.quantifier is not Quantifier.WHOLE:
        return {APPLICATION: _violating(expect)}
    return _violating(expect)


def _satisfying(expect: Expectation) -> Json:  # noqa: PLR0911, PLR0912, C901 - one case an operator
    value = expect.value
    match expect.op:
        case Operator.EQ | Operator.GE | Operator.LE:
            return value
        case Operator.GT:
            return value + 1
        case Operator.LT:
            return value - 1
        case Operator.BETWEEN | Operator.IN:
            return value[0]
        case Operator.CONTAINS | Operator.CONTAINS_ANY:
            return (
                value
                if isinstance(value, str)
                else [value[0] if isinstance(value, list) else value]
            )
        case Operator.CONTAINS_ALL | Operator.SUBSET_OF:
            return list(value)
        case (
            Operator.NE
            | Operator.NOT_IN
            | Operator.EXCLUDES
            | Operator.PRESENT
            | Operator.NOT_EMPTY
        ):
            return "something-else" if expect.op is not Operator.EXCLUDES else ["something-else"]
        case Operator.MATCHES:
            return next(text for text in TEXTS if re.search(value, text, re.MULTILINE))
        case Operator.NOT_MATCHES:
            return next(text for text in TEXTS if not re.search(value, text, re.MULTILINE))
        case Operator.MODE_AT_MOST:
            return value
        case Operator.LENGTH:
            return [str(number) for number in range(value)]
        case Operator.EMPTY:
            return []
        case Operator.FIELDS:
            return {name: satisfying(inner) for name, inner in expect.fields.items()}
        case Operator.ANY_OF:
            present = [a for a in expect.alternatives if a.op is not Operator.ABSENT]
            return satisfying(present[0]) if present else None
        case Operator.ALL_OF:
            return _satisfying_all(expect)
        case _:
            return None


def _satisfying_all(expect: Expectation) -> Json:
    from pytest_nixos.standards.control.expectation import mismatch

    candidates: list[Json] = [_satisfying(inner) for inner in expect.alternatives]
    candidates += [*TEXTS, "node_systemd_unit_state node_processes", {APPLICATION: candidates[0]}]
    if all(isinstance(c, Mapping) for c in candidates[: len(expect.alternatives)]):
        candidates.append(
            {k: v for c in candidates[: len(expect.alternatives)] for k, v in c.items()}
        )
    merged = [c for c in candidates if isinstance(c, list)]
    candidates += [[item] for c in merged for item in c]
    values = [v for inner in expect.alternatives for v in _members(satisfying(inner))]
    candidates += [{str(n): v for n, v in enumerate(values)}, values, *([v] for v in values)]
    fields = {k: v for inner in expect.alternatives for k, v in _named(inner).items()}
    candidates.append({**{f"other{n}": v for n, v in enumerate(values)}, **fields})
    return next(c for c in candidates if c is not None and mismatch(expect, c) is None)


def _named(expect: Expectation) -> dict[str, Json]:
    return _satisfying(expect) if expect.op is Operator.FIELDS else {}


def _members(value: Json) -> list[Json]:
    if isinstance(value, Mapping):
        return list(value.values())
    return list(value) if isinstance(value, list) else [value]


def _violating(expect: Expectation) -> Json:  # noqa: PLR0911, PLR0912, C901 - one line an operator
    value = expect.value
    match expect.op:
        case Operator.EQ:
            return (not value) if isinstance(value, bool) else "something-else"
        case Operator.NE:
            return value
        case Operator.GE:
            return value - 1
        case Operator.GT:
            return value
        case Operator.LE:
            return value + 1
        case Operator.LT:
            return value
        case Operator.BETWEEN:
            return value[1] + 1
        case Operator.NOT_IN | Operator.EXCLUDES:
            return value[0] if expect.op is Operator.NOT_IN else [value[0]]
        case Operator.SUBSET_OF | Operator.CONTAINS_ALL | Operator.CONTAINS_ANY | Operator.CONTAINS:
            return "something-else" if isinstance(value, str) else ["something-else"]
        case Operator.MATCHES:
            return next(text for text in TEXTS if not re.search(value, text, re.MULTILINE))
        case Operator.NOT_MATCHES:
            return next(text for text in TEXTS if re.search(value, text, re.MULTILINE))
        case Operator.MODE_AT_MOST:
            return "7777"
        case Operator.LENGTH:
            return [str(number) for number in range(value + 1)]
        case Operator.FIELDS:
            return {name: _violating(inner) for name, inner in expect.fields.items()}
        case Operator.ANY_OF | Operator.ALL_OF:
            return _violating_composed(expect)
        case Operator.PRESENT:
            return None
        case Operator.NOT_EMPTY:
            return []
        case Operator.EMPTY:
            return ["something"]
        case _:
            return "something-else"


def _violating_composed(expect: Expectation) -> Json:
    from pytest_nixos.standards.control.expectation import mismatch

    candidates = [violating(inner) for inner in expect.alternatives]
    maps = [c for c in candidates if isinstance(c, Mapping)]
    candidates.append({k: v for c in maps for k, v in c.items()})
    candidates += [*TEXTS, {APPLICATION: "something-else"}]
    return next(c for c in candidates if c is not None and mismatch(expect, c) is not None)
