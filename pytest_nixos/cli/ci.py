"""``pytest-nixos ci``: the files by which a CI service judges the hosts of a flake."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from pytest_nixos import __version__
from pytest_nixos.cli.command import Commands
from pytest_nixos.cli.default_flake import default_flake
from pytest_nixos.cli.nix_options import add_nix_options, nix_settings
from pytest_nixos.errors import SettingsError
from pytest_nixos.nix.command.argv import NixSettings
from pytest_nixos.nix.command.refs import HostSelection, nix_quote
from pytest_nixos.nix.failure.absent import no_hosts, no_such_host

__all__ = ["add", "gitlab_hosts", "reusable_workflow", "workflow"]

#: service: the file that is written for it
_FILES: Mapping[str, str] = {
    "github": "github.yml",
    "gitlab": "gitlab.yml",
    "forgejo": "forgejo.yml",
    "buildbot-nix": "buildbot-nix.toml",
    "hydra": "hydra.nix",
    "garnix": "garnix.yaml",
}
_REUSABLE = """\
# For other repositories: `uses: pytest-nixos/pytest-nixos/.github/workflows/hosts.yml@...`, see docs/how-to/ci.md.
# Written by `python -m docs.generate`.
name: hosts
"""
_CALLED = """\
  workflow_call:
    inputs:
      fail-on:
        description: Severity from which on a finding fails the job
        type: string
        default: medium
"""
_CHILD = "gitlab-hosts"
_GITLAB_JUDGES = (
    'pytest --nixos-flake "$FLAKE#$HOST" --nixos-fail-on medium --junit-xml junit.xml'
    " --nixos-report html:report.html --nixos-report json:report.json"
    " --nixos-report codequality:codequality.json"
)


def add(commands: Commands) -> None:
    """Declare the command."""
    ci = commands.add_parser("ci", help="write the file by which a CI service judges the hosts")
    ci.add_argument("service", choices=(*_FILES, _CHILD))
    ci.add_argument("flake", metavar="REF", nargs="?", help=f"the flake, or a host, for {_CHILD}")
    add_nix_options(ci)
    ci.set_defaults(command=_ci)


def _ci(options: argparse.Namespace) -> Iterator[str]:
    settings = nix_settings(options)
    if options.service == _CHILD:
        typed = options.flake or "."
        yield gitlab_hosts(typed.partition("#")[0] or ".", _selected(typed, settings), settings)
        return
    if options.flake is not None or settings != NixSettings():
        raise SettingsError(
            f"ci {options.service}: the file is the same for every flake, and of no use are a REF,"
            " --override-input and --nix-option",
            remedy="leave them out, and write them into the file where it says how hosts are judged",
        )
    yield workflow(options.service)


def _selected(typed: str, settings: NixSettings) -> Sequence[str]:
    """Return the hosts to judge.

    :raises FlakeError: if there are none, since a pipeline without a job judges nothing and
        succeeds.
    """
    selection = HostSelection.parse(typed, cwd=Path.cwd())
    names = default_flake(selection.flake, settings).host_names()
    if not names:
        raise no_hosts(selection.flake)
    if selection.host is None:
        return names
    if selection.host.attr not in names:
        raise no_such_host(selection.host, names)
    return (selection.host.attr,)


def workflow(service: str) -> str:
    """Return the file of a service, for this release of the plugin."""
    text = (files("pytest_nixos.cli") / "workflows" / _FILES[service]).read_text(encoding="utf-8")
    return text.replace("@VERSION@", __version__).rstrip("\n")


def reusable_workflow() -> str:
    """Return GitHub's workflow as one that other repositories call; this repository has it in
    ``.github/workflows/hosts.yml``.
    """
    _, on, rest = workflow("github").partition("on:\n")
    _, permissions, jobs = rest.partition("permissions: {}\n")
    text = f"{_REUSABLE}{on}{_CALLED}{permissions}{jobs}\n"
    return text.replace("fail-on: medium", "fail-on: ${{ inputs.fail-on }}")


def gitlab_hosts(flake: str, names: Sequence[str], settings: NixSettings | None = None) -> str:
    """Write GitLab's child pipeline: a job for each host.

    It is JSON, which YAML is too: nothing in a host's name is syntax, and the name reaches the shell
    as a variable that GitLab does not expand, and the plugin as a string of Nix.

    :param settings: with which the hosts were listed, and are judged.
    """
    parent = yaml.safe_load(workflow("gitlab"))["list hosts"]
    judges = shlex.join(_options_of_pytest(settings or NixSettings()))
    pipeline = {"stages": ["judge"]} | {
        f"host {name}": _gitlab_job(parent, flake, name, f"{_GITLAB_JUDGES} {judges}".rstrip())
        for name in names
    }
    return json.dumps(pipeline, indent=2)


def _options_of_pytest(settings: NixSettings) -> Iterator[str]:
    for name, ref in settings.override_inputs:
        yield from ("--nixos-override-input", name, ref)
    for name, value in settings.nix_options:
        yield from ("--nixos-nix-option", name, value)


def _gitlab_job(parent: Mapping[str, Any], flake: str, name: str, judges: str) -> dict[str, Any]:
    return {
        "stage": "judge",
        "image": parent["image"],
        "before_script": parent["before_script"],
        "variables": {
            "FLAKE": {"value": flake, "expand": False},
            "HOST": {"value": nix_quote(name), "expand": False},
        },
        "script": [judges],
        "artifacts": {
            "when": "always",
            "paths": ["report.html", "report.json"],
            "reports": {"junit": "junit.xml", "codequality": "codequality.json"},
        },
    }
