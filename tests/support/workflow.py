"""A composite action as a shell script: what a runner makes of it, without the runner."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

__all__ = ["as_script", "gitlab_script"]

_EXPRESSION = re.compile(r"\$\{\{\s*(\S+?)\s*\}\}")
_CONDITION = re.compile(r"inputs\.(?P<name>[\w-]+) (?P<sign>[!=]=) ''")


def as_script(action: Path, inputs: Mapping[str, str]) -> str:
    """Return a script that runs the steps of an action as GitHub's runner does.

    Its working directory is the repository that is tested; it keeps what a runner keeps (outputs,
    summary) in files below ``$RUNNER_TEMP``, and goes on with no step after one that failed.

    :param inputs: what the workflow gives; the rest is the action's defaults.
    """
    document = yaml.safe_load(action.read_text(encoding="utf-8"))
    values = {name: str(entry.get("default", "")) for name, entry in document["inputs"].items()}
    assert set(inputs) <= set(values), "an input that the action does not have"
    known = {f"inputs.{name}": value for name, value in (values | dict(inputs)).items()}
    known["github.action_path"] = str(action.parent)
    lines = [
        "set -eu",
        "export RUNNER_TEMP=${RUNNER_TEMP:-$(mktemp -d)}",
        "export GITHUB_OUTPUT=$RUNNER_TEMP/output GITHUB_STEP_SUMMARY=$RUNNER_TEMP/summary",
    ]
    for step in document["runs"]["steps"]:
        assert "uses" not in step, "a step of a third party cannot be run here"
        if _holds(step.get("if", ""), known):
            lines += _step(step, known)
    return "\n".join(lines) + "\n"


def _step(step: Mapping[str, Any], known: Mapping[str, str]) -> Iterator[str]:
    assert "${{" not in step["run"], "an expression in the text of a script"
    environment = {
        name: _EXPRESSION.sub(lambda found: known[found[1]], text)
        for name, text in step.get("env", {}).items()
    }
    words = [f"{name}={value}" for name, value in environment.items()]
    shell = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
    yield shlex.join(["echo", f"step: {step['name']}"])
    yield shlex.join(["env", *words, *shell])


def _holds(condition: str, known: Mapping[str, str]) -> bool:
    if not condition:
        return True
    found = _CONDITION.fullmatch(condition)
    assert found, f"a condition that this does not know: {condition}"
    return (known[f"inputs.{found['name']}"] == "") == (found["sign"] == "==")


def gitlab_script(job: Mapping[str, Any]) -> str:
    """Return a script that runs a job as GitLab's runner does: its lines in one shell."""
    variables = [
        shlex.join(["export", f"{name}={entry['value']}"])
        for name, entry in job.get("variables", {}).items()
    ]
    return "\n".join(["set -eo pipefail", *variables, *job["before_script"], *job["script"]]) + "\n"
