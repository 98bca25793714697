"""The ledger after a crash, a full disk or a stranger's hand; what evidence takes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from pytest_nixos.findings import Evidence, Finding, Ledger, Outcome, Severity


def finding(control: str) -> Finding:
    return Finding(
        control=control,
        title="t",
        suite="boot",
        host="web",
        backend="vm",
        severity=Severity.LOW,
        outcome=Outcome.FAILED,
        judged_on="machine",
        reason="r",
        threat="",
        remedy="",
    )


def ledger(path: Path) -> list[str]:
    kept = Ledger(path)
    kept.append(finding("A-1"))
    kept.append(finding("A-2"))
    kept.close()
    return path.read_text().splitlines(keepends=True)


@pytest.mark.parametrize(
    "more",
    [
        "{",
        '{"control": "A-3"}\n',
        "\x00\x00\n",
        "[1, 2]\n",
        "null\n",
        '"text"\n',
        "[" * 10_000 + "\n",
    ],
    ids=["cut", "fields are missing", "zeros", "a list", "null", "text", "deep"],
)
def test_a_line_that_is_no_finding_costs_that_line(tmp_path: Path, more: str) -> None:
    first, second = ledger(tmp_path / "l")
    (tmp_path / "l").write_text(first + more + ("" if more.endswith("\n") else "\n") + second)
    assert [found.control for found in Ledger.read(tmp_path / "l")] == ["A-1", "A-2"]


@pytest.mark.parametrize("name", ["severity", "outcome", "references", "journal", "rests_on"])
def test_a_field_of_a_wrong_type_costs_its_line(tmp_path: Path, name: str) -> None:
    first, second = ledger(tmp_path / "l")
    bad = json.dumps({**json.loads(first), name: 7})
    (tmp_path / "l").write_text(f"{bad}\n{second}")
    assert [found.control for found in Ledger.read(tmp_path / "l")] == ["A-2"]


def test_bytes_that_are_no_text_cost_their_line(tmp_path: Path) -> None:
    first, second = ledger(tmp_path / "l")
    (tmp_path / "l").write_bytes(first.encode() + b"\xff\xfe\n" + second.encode())
    assert [found.control for found in Ledger.read(tmp_path / "l")] == ["A-1", "A-2"]


def test_a_ledger_is_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        Ledger(tmp_path / "state/l").close()
    finally:
        os.umask(before)
    assert (tmp_path / "state/l").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700


def test_an_attachment_without_end_is_cut() -> None:
    evidence = Evidence()
    evidence.attach("journal", "x" * (10 << 20))
    assert len(evidence.attachments["journal"]) == 64 * 1024


def test_a_value_that_is_no_json_is_written_as_text() -> None:
    """A check of a user may observe anything."""
    odd = {"bytes": b"\xff\x00", "path": Path("/x"), "set": {2, 1}, 3: object, "nan": float("inf")}
    text = json.dumps(Evidence(observed=odd).observed, default=str, skipkeys=True)
    assert text
    assert json.loads(json.dumps(_with(odd).to_json()))


class Leased(msgspec.Struct, frozen=True):
    by: Path


@dataclass(frozen=True)
class Fixed:
    by: Path


@pytest.mark.parametrize("kind", [Leased, Fixed])
def test_a_value_that_was_observed_is_written_field_by_field(kind: Callable[..., object]) -> None:
    observed = _with([kind(by=Path("/x"))]).to_json()["observed"]
    assert observed == [{"by": "/x"}]


def _with(observed: object) -> Finding:
    plain = finding("A-1").to_json()
    return Finding.from_json({**plain, "observed": observed})
