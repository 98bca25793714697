"""What differs between releases and builds of Nix makes no difference to what a run says.

The fake Nix does as each of them; the real ones that can be had are run by
tests/machine/test_nix_command.py.
"""

from __future__ import annotations

import pytest

from tests.plugin.field import Field


@pytest.mark.parametrize("lane", ["2.8", "2.34", "2.35", "determinate", "lix"])
def test_a_host_is_started_and_the_source_of_its_flake_is_found(
    field: Field, monkeypatch: pytest.MonkeyPatch, lane: str
) -> None:
    """Nix 2.35 names a path that is not there, Determinate Nix none: no control of the flake is
    not applicable for that.
    """
    monkeypatch.setenv("FAKE_NIX_LANE", lane)
    field.pytester.makepyfile(
        "def test_runs(nixos_machine): assert nixos_machine.run('true').succeeded"
    )
    result = field.run("--nixos-flake", ".#web", "-k", "SEC-006 or test_runs")
    result.assert_outcomes(passed=2, deselected=result.parseoutcomes()["deselected"])
    assert field.machine_log == ["start web", "stop web"]


@pytest.mark.parametrize(
    ("lane", "words", "says"),
    [
        (
            "2.34",
            "path '/f' is not part of a flake (neither it nor its parent",
            "no flake.nix there",
        ),
        ("determinate", "getting status of '/f': No such file or directory", "no such file"),
        (
            "lix",
            "could not connect to any lix socket (tried '/nix/var/nix/daemon-socket/socket')",
            "daemon does not answer",
        ),
    ],
)
def test_its_failures_have_a_remedy_of_ours(
    field: Field, monkeypatch: pytest.MonkeyPatch, lane: str, words: str, says: str
) -> None:
    monkeypatch.setenv("FAKE_NIX_LANE", lane)
    monkeypatch.setenv("FAKE_NIX_METADATA_FAILS", words)
    field.pytester.makepyfile("def test_runs(nixos_machine): pass")
    result = field.run_hosts()
    told = result.stdout.str() + result.stderr.str()
    assert says in told
    assert "remedy" in told
    assert "INTERNALERROR" not in told
