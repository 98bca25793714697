"""A failed test of a cluster names the file with the frames of its networks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_nixos.plugin.machines.captures import NetworkCaptures

pytest_plugins = ["pytester"]

TESTS = """
import pytest

@pytest.fixture
def wires():
    return None

@pytest.fixture
def members(wires):
    return None

def test_fails(members):
    assert False

def test_passes(members):
    pass

def test_elsewhere():
    assert False
"""


class TwoNetworks:
    """A cluster, as far as captures ask."""

    networks = ("10.0.0.0/24", "lan")

    def __iter__(self) -> Iterator[str]:
        return iter(("a", "b"))

    def capture(self, path: Path, *, network: str) -> Path:
        path.write_text(f"frames of {network}")
        return path


def test_failures_on_a_cluster_have_its_frames(
    pytester: pytest.Pytester, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The fixture itself wants a flake.
    monkeypatch.setattr("pytest_nixos.plugin.machines.captures.FIXTURE", "wires")
    made: list[Path] = []

    def make(name: str) -> Path:
        path = tmp_path / f"{name}{len(made)}"
        path.mkdir()
        made.append(path)
        return path

    pytester.makepyfile(TESTS)
    captures = NetworkCaptures(lambda: [TwoNetworks()], make)  # type: ignore[list-item]
    run = pytester.inline_run("-p", "no:randomly", "-p", "no:cacheprovider", plugins=[captures])
    sections = {
        report.nodeid.rpartition("::")[2]: dict(report.sections)
        for report in run.getreports("pytest_runtest_logreport")
        if report.when == "call"
    }
    assert sections["test_passes"] == sections["test_elsewhere"] == {}
    assert sections["test_fails"] == {
        "frames of a, b on 10.0.0.0/24": str(tmp_path / "networks0" / "10.0.0.0-24.pcap"),
        "frames of a, b on lan": str(tmp_path / "networks0" / "lan.pcap"),
    }
    assert (tmp_path / "networks0" / "lan.pcap").read_text() == "frames of lan"
