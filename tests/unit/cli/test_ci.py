"""``pytest-nixos ci``: what it writes judges every host that there is, and none is lost unseen."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from pytest_nixos.cli import ci
from pytest_nixos.cli.main import main
from pytest_nixos.nix.command.refs import HostSelection

#: names that hold what is syntax of a reference, of Nix or of a shell
ODD = (
    "nixosConfigurations.q",
    '"q"',
    "a#b",
    '"',
    "a\\",
    "${x}",
    '$"\\${',
    "web.example.org",
    "q\n",
)


@pytest.fixture
def written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Mapping[str, Any]]:
    """Return what ``ci gitlab-hosts`` writes of a flake with some hosts."""

    def write(*arguments: str, hosts: tuple[str, ...] = ("web", "db")) -> Mapping[str, Any]:
        flake = SimpleNamespace(host_names=lambda: hosts)
        monkeypatch.setattr(ci, "default_flake", lambda *_: flake)
        status = main(["ci", "gitlab-hosts", *arguments])
        said = capsys.readouterr()
        pipeline = json.loads(said.out) if said.out else {}
        jobs = {name: job for name, job in pipeline.items() if name.startswith("host ")}
        return {"status": status, "error": said.err, "jobs": jobs}

    return write


def test_a_pipeline_without_a_job_is_an_error(written: Callable[..., Mapping[str, Any]]) -> None:
    done = written(".", hosts=())
    assert done["status"] == 4
    assert not done["jobs"]
    assert "nixosConfigurations is empty" in done["error"]


def test_a_host_that_is_named_is_the_one_that_is_judged(
    written: Callable[..., Mapping[str, Any]],
) -> None:
    jobs = written("./infra#db")["jobs"]
    assert list(jobs) == ["host db"]
    assert jobs["host db"]["variables"]["FLAKE"]["value"] == "./infra"
    done = written(".#nope")
    assert done["status"] == 4
    assert "nope: no such host; the flake has web, db" in done["error"]


def test_hosts_are_judged_with_what_they_were_listed_with(
    written: Callable[..., Mapping[str, Any]],
) -> None:
    options = ("--override-input", "nixpkgs", "path:/x y", "--nix-option", "cores", "2")
    (script,) = written(".", *options)["jobs"]["host web"]["script"]
    told = shlex.split(script)
    assert told[-6:] == [
        *("--nixos-override-input", "nixpkgs", "path:/x y"),
        *("--nixos-nix-option", "cores", "2"),
    ]


@pytest.mark.parametrize("name", ODD)
def test_any_name_comes_back_as_itself(
    written: Callable[..., Mapping[str, Any]], name: str, tmp_path: Path
) -> None:
    variables = written(".", hosts=(name,))["jobs"][f"host {name}"]["variables"]
    selected = f"{variables['FLAKE']['value']}#{variables['HOST']['value']}"
    assert HostSelection.parse(selected, cwd=tmp_path).attr == name


@pytest.mark.parametrize("more", [["/nonexistent"], ["--override-input", "a", "b"]])
def test_what_the_file_does_not_depend_on_is_refused(
    more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ci", "github", *more]) == 4
    assert "ci github: the file is the same for every flake" in capsys.readouterr().err


def test_no_job_of_github_is_left_out_for_want_of_hosts() -> None:
    """The job that lists them fails, where a job that is left out would succeed."""
    judge = yaml.safe_load(ci.workflow("github"))["jobs"]["judge"]
    assert "if" not in judge
    assert judge["needs"] == "hosts"
