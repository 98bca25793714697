"""Every shell step of the action and of the workflows that `pytest-nixos ci` writes is run.

Here as the machine is: Nix is there, and what would change the machine is a program that only notes
it. With ``PYTEST_NIXOS_BARE=1`` in bare roots, where the steps install all that they need (4
minutes).
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from pytest_nixos import __version__
from pytest_nixos.cli.ci import gitlab_hosts, workflow
from pytest_nixos.nix.command.refs import nix_quote
from tests.machine.test_nix_command import TINY
from tests.support.workflow import as_script, gitlab_script

ROOT = Path(__file__).parents[2]
ACTION = ROOT / "action.yml"
HOST = "tiny.example-1"

pytestmark = pytest.mark.skipif(not shutil.which("nix"), reason="no Nix")
bare = pytest.mark.skipif(
    "PYTEST_NIXOS_BARE" not in os.environ, reason="PYTEST_NIXOS_BARE=1: minutes in bare roots"
)

# One finding that fails, of the config alone, with what must not become a command to the runner.
OWN = """
def test_own(nixos_host_config):
    print("\\n::error::from a guest")
    assert nixos_host_config.host_name == "other"
"""
ARGUMENTS = "test_own.py\n--nixos-suite\nnone\n-p\nno:cacheprovider"

# A Python whose virtual environments are the one that runs this test.
PYTHON = f"""#!/bin/sh
if [ "$1 $2" = "-m venv" ]; then
  mkdir -p "$3/bin"
  printf '#!/bin/sh\\nexec %s "$@"\\n' {sys.executable} > "$3/bin/python"
  printf '#!/bin/sh\\necho "$@" >> %s\\n' "$NOTES/pip" > "$3/bin/pip"
  ln -s {sys.prefix}/bin/pytest "$3/bin/pytest"
  exec chmod +x "$3/bin/python" "$3/bin/pip"
fi
exec {sys.executable} "$@"
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A repository with a flake, and programs that only note how they are called."""
    repository = tmp_path / "repository"
    programs = tmp_path / "programs"
    repository.mkdir()
    programs.mkdir()
    (repository / "flake.nix").write_text(TINY)
    (repository / "test_own.py").write_text(OWN)
    for name in ("sudo", "apt-get", "udevadm", "sysctl"):
        (programs / name).write_text(f'#!/bin/sh\necho "$@" >> "$NOTES/{name}"\n')
    (programs / "python3").write_text(PYTHON)
    for program in programs.iterdir():
        program.chmod(0o755)
    return tmp_path


def run(place: Path, script: str) -> subprocess.CompletedProcess[str]:
    runner = place / "runner"
    shutil.rmtree(runner, ignore_errors=True)
    runner.mkdir()
    return subprocess.run(
        ["bash", "-c", script],
        cwd=place / "repository",
        env=os.environ
        | {
            "PATH": f"{place / 'programs'}:{os.environ['PATH']}",
            "RUNNER_TEMP": str(runner),
            "NOTES": str(place),
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def steps_of(service: str) -> list[Mapping[str, Any]]:
    jobs = yaml.safe_load(workflow(service))["jobs"].values()
    return [step for job in jobs for step in job["steps"]]


def test_the_action_lists_hosts(place: Path) -> None:
    done = run(place, as_script(ACTION, {}))
    assert done.returncode == 0, done.stderr
    name, _, listed = (place / "runner" / "output").read_text().partition("=")
    assert name == "hosts"
    assert HOST in json.loads(listed)
    assert listed.count("\n") == 1
    assert str(ROOT) in (place / "pip").read_text(), "the plugin of the action's own commit"


def test_the_action_fails_where_there_is_no_host_to_judge(place: Path) -> None:
    flake = "{ outputs = { self }: { nixosConfigurations = { }; }; }"
    (place / "repository" / "flake.nix").write_text(flake)
    done = run(place, as_script(ACTION, {}))
    assert done.returncode == 1, done.stdout + done.stderr
    assert "::error::nixosConfigurations of this flake are empty: no host to judge" in done.stdout
    assert not (place / "runner" / "output").exists()


@pytest.mark.parametrize("name", ["nixosConfigurations.q", '"q"', "a#b"])
def test_the_action_judges_the_host_of_that_name(place: Path, name: str) -> None:
    flake = TINY.replace('"tiny.example-1" =', f"{nix_quote(name)} =")
    (place / "repository" / "flake.nix").write_text(flake)
    arguments = f"{ARGUMENTS}\n--collect-only\n-q"
    done = run(place, as_script(ACTION, {"host": name, "arguments": arguments}))
    assert f"test_own[{name}]" in done.stdout, done.stdout + done.stderr


def test_the_action_judges_a_host(place: Path) -> None:
    done = run(place, as_script(ACTION, {"host": HOST, "arguments": ARGUMENTS}))
    assert done.returncode == 1, done.stdout + done.stderr
    reports = place / "runner" / "pytest-nixos-reports"
    assert {file.name for file in reports.iterdir()} == {
        *("annotations.txt", "junit.xml", "report.html", "report.json", "report.sarif"),
        "summary.md",
    }
    assert (place / "runner" / "output").read_text() == f"reports={reports}\n"
    assert "| tiny" in (place / "runner" / "summary").read_text()


def test_a_guest_gives_the_runner_no_command(place: Path) -> None:
    done = run(place, as_script(ACTION, {"host": HOST, "arguments": ARGUMENTS}))
    lines = done.stdout.splitlines()
    stop = next(n for n, line in enumerate(lines) if line.startswith("::stop-commands::"))
    token = lines[stop].removeprefix("::stop-commands::")
    again = lines.index(f"::{token}::")
    assert len(token) == 32
    assert stop < lines.index("::error::from a guest") < again


def test_all_hosts_are_judged_by_a_star(place: Path) -> None:
    arguments = f"{ARGUMENTS}\n--collect-only\n-q"
    done = run(place, as_script(ACTION, {"host": "*", "arguments": arguments}))
    assert "test_own[tiny.example-1]" in done.stdout
    assert "test_own[container]" in done.stdout


@pytest.mark.parametrize("service", ["github", "forgejo"])
def test_a_workflow_has_no_shell_but_the_actions(service: str) -> None:
    steps = steps_of(service)
    assert not [step for step in steps if "run" in step]
    own = [step for step in steps if "pytest-nixos/pytest-nixos@" in step.get("uses", "")]
    assert own
    for step in own:
        as_script(ACTION, step.get("with", {}))  # knows all its inputs


def test_gitlabs_jobs_run(place: Path) -> None:
    pipeline = yaml.safe_load(workflow("gitlab"))
    # What belongs to a container, in a place of the test's.
    moved = {"/opt/pytest-nixos": str(place / "venv"), "/etc/nix": str(place / "etc")}

    def script(job: Mapping[str, Any]) -> str:
        text = gitlab_script(job)
        for there, here in moved.items():
            assert there in text
            text = text.replace(there, here)
        return text

    done = run(place, script(pipeline["list hosts"]))
    assert done.returncode == 0, done.stderr
    child = yaml.safe_load((place / "repository" / "hosts.yml").read_text())
    job = child[f"host {HOST}"]
    judged = script(job).rstrip("\n") + f" {shlex.join(ARGUMENTS.splitlines())}\n"
    done = run(place, judged)
    assert done.returncode == 1, done.stdout + done.stderr
    artifacts = job["artifacts"]
    for name in (*artifacts["paths"], *artifacts["reports"].values()):
        assert (place / "repository" / name).exists(), name


def test_no_name_of_a_host_is_syntax() -> None:
    name = "a: b\n$(touch x) ${Y} 'q' \"r\" #"
    job = yaml.safe_load(gitlab_hosts(".", [name]))[f"host {name}"]
    assert job["variables"]["HOST"] == {"value": nix_quote(name), "expand": False}
    assert name not in " ".join(job["script"])


@bare
@pytest.mark.parametrize("service", ["github", "gitlab"])
def test_it_all_runs_in_a_bare_root(service: str, tmp_path: Path) -> None:
    """Of HEAD: what is not committed is not there."""
    listing, judging = bare_scripts(service)
    files = {"flake.nix": TINY, "test_own.py": OWN}
    script = "\n".join(
        [
            "set -e; mkdir /tmp/repository; cd /tmp/repository",
            *(f"printf %s {shlex.quote(text)} > {name}" for name, text in files.items()),
            f"bash -c {shlex.quote(listing)}",
            f"bash -c {shlex.quote(judging)} || test $? = 1",
            "echo judged",
        ]
    )
    done = subprocess.run(
        [ROOT / "tests/fresh/run", "--suite", "trixie", "--", "bash", "-c", script],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert HOST in done.stdout
    assert "1 failed" in done.stdout
    assert done.stdout.rstrip().endswith("judged")


def bare_scripts(service: str) -> tuple[str, str]:
    """Return what lists the hosts and what judges one, for a root with this project in
    ``/root/project``.
    """
    if service == "github":
        listing, judging = (
            as_script(ACTION, inputs).replace(str(ROOT), "/root/project")
            for inputs in ({}, {"host": HOST, "arguments": ARGUMENTS})
        )
        return f'{listing}cat "$GITHUB_OUTPUT"\n', judging
    # This project, not what the registry has.
    released = f'"pytest-nixos=={__version__}"'
    parent = yaml.safe_load(workflow("gitlab"))["list hosts"]
    job = yaml.safe_load(gitlab_hosts(".", [HOST]))[f"host {HOST}"]
    listing, judging = (
        gitlab_script(one).rstrip("\n").replace(released, "/root/project") for one in (parent, job)
    )
    assert "/root/project" in listing
    return f"{listing}\ncat hosts.yml\n", f"{judging} {shlex.join(ARGUMENTS.splitlines())}\n"
