"""Controls of the catalogue that have to be tried: activation, a memory hog, a generation of the
model server.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from pytest_nixos import (
    Control,
    Evidence,
    HostConfig,
    Machine,
    SwitchEnd,
    not_applicable,
    observe,
)

from .activated import failed_snippets

_SWITCH = "/run/current-system/bin/switch-to-configuration"
# An activation of what runs already takes seconds, an emulated guest a minute.
_ACTIVATION_LIMIT_S = 180.0
_GENERATION_LIMIT_S = 300.0
_LOADED_S = 30.0
_OLLAMA = "ollama.service"
# The last start of each service: what an activation restarts gets a new one.
_STARTS = (
    "systemctl show --type=service --state=active --property=Id,Type,InvocationID,NRestarts '*'"
)
_STARTED = re.compile(r"^the following new units were started: (.*)$", re.MULTILINE)
_HOG_UNIT = "pytest-nixos-hog.service"
# tail keeps everything back to the last newline, of which /dev/zero has none; swap would only make
# it slow.
_HOG = (
    f"systemd-run --quiet --wait --collect --unit={_HOG_UNIT} --property=MemoryMax=64M "
    "--property=MemorySwapMax=0 --property=OOMPolicy=kill --property=RuntimeMaxSec=120 "
    "/run/current-system/sw/bin/tail /dev/zero 2>&1; echo status=$?"
)
_HOG_LIMIT_S = 180.0
_ANSWER_LIMIT_S = 5.0
_REQUEST = """curl --silent --show-error --noproxy '*' --max-time 290 --data-binary @- '{url}/api/generate'"""


@pytest.mark.nixos_control("GEN-009")
def test_dry_activation_succeeds(nixos_machine: Machine, nixos_evidence: Evidence) -> None:
    result = nixos_machine.run(
        f"cd / && {_SWITCH} dry-activate 2>&1",
        timeout_s=nixos_machine.deadline(_ACTIVATION_LIMIT_S).limit_s,
    )
    nixos_evidence.attach("switch-to-configuration dry-activate", result.stdout_text)
    nixos_evidence.expect(0)
    nixos_evidence.observe(result.exit_status)
    assert result.succeeded, (
        f"a dry activation of the running system ends with {result.exit_status}"
    )


@pytest.mark.nixos_destructive
@pytest.mark.nixos_control("GEN-010")
def test_second_activation_changes_nothing(
    nixos_machine: Machine,
    nixos_place: str,
    nixos_progress: Callable[[str], None],
    nixos_evidence: Evidence,
) -> None:
    nixos_progress("activating the running system once more")
    # The first one may still have something to do, for example after a boot without its boot
    # loader.
    _activate(nixos_machine, nixos_evidence, "first activation")
    before = _starts(nixos_machine)
    nixos_progress("activating it a second time")
    status, output = _activate(nixos_machine, nixos_evidence, "second activation")
    after = _starts(nixos_machine)
    # A job that has ended is started at each activation, and switch-to-configuration says so.
    jobs = {name for line in re.findall(_STARTED, output) for name in line.split(", ")}
    restarted = sorted(
        name
        for name, unit in before.items()
        if name not in jobs and _restarted(unit, after.get(name))
    )
    snippets: tuple[str, ...] = ()
    if status == SwitchEnd.ACTIVATION_FAILED.value:
        snippets = failed_snippets(output, place=nixos_place)
        status = status if snippets else SwitchEnd.DONE.value
    nixos_evidence.rest_on("activation", *snippets)
    nixos_evidence.expect({"exit status": 0, "restarted": []})
    nixos_evidence.observe({"exit status": status, "restarted": restarted})
    assert before, "no service is active, so nothing could be compared"
    told = f": {', '.join(snippets)}" if snippets else ""
    assert status == 0, f"the second activation ends with {status}{told}"
    assert not restarted, f"activating the same system again restarts {', '.join(restarted)}"


@pytest.mark.nixos_destructive
@pytest.mark.nixos_control("MEM-012")
def test_a_memory_hog_is_killed_and_the_host_survives(
    nixos_machine: Machine, nixos_slowness: Callable[[], str], nixos_evidence: Evidence
) -> None:
    before = set(_starts(nixos_machine))
    result = nixos_machine.run(_HOG, timeout_s=nixos_machine.deadline(_HOG_LIMIT_S).limit_s)
    answer = nixos_machine.run("true")
    lost = sorted(before - set(_starts(nixos_machine)))
    told = nixos_machine.run(
        f"journalctl --boot --no-pager --quiet --unit={_HOG_UNIT} | tail -n 20"
    )
    nixos_evidence.attach("journal of the hog", told.stdout_text)
    nixos_evidence.expect(
        {"hog": "killed for its memory", "services lost": [], "answer in s": _ANSWER_LIMIT_S}
    )
    killed = "oom-kill" in told.stdout_text
    nixos_evidence.observe(
        {
            "hog": "killed for its memory" if killed else result.stdout_text.strip()[-200:],
            "services lost": lost,
            "answer in s": round(answer.duration_s, 1),
        }
    )
    assert before, "no service was active, so nothing could have survived"
    assert killed, "a process that took more than its MemoryMax was not killed for it"
    assert not lost, f"gone after the hog: {', '.join(lost)}"
    if answer.duration_s > _ANSWER_LIMIT_S and (why := nixos_slowness()):
        not_applicable(f"unknown: it answers after {answer.duration_s:.0f} s, and {why}")
    assert answer.duration_s <= _ANSWER_LIMIT_S, "the host no longer answers in time"


@pytest.mark.nixos_control("LLM-005")
def test_a_generation_completes(
    nixos_host_config: HostConfig, nixos_machine: Machine, nixos_evidence: Evidence
) -> None:
    answer = _generation(nixos_host_config, nixos_machine, nixos_evidence, tokens=8)
    nixos_evidence.expect({"done": True, "eval_count": "more than 0"})
    found = nixos_evidence.observe(
        {key: answer.get(key) for key in ("done", "eval_count", "error")}
    )
    assert found["done"] is True, f"the generation did not complete: {found['error']}"
    assert isinstance(found["eval_count"], int) and found["eval_count"] > 0, "no token was made"


@pytest.mark.nixos_control("LLM-006")
def test_the_model_is_fast_enough(
    nixos_host_config: HostConfig,
    nixos_machine: Machine,
    nixos_evidence: Evidence,
    nixos_control: Control,
    nixos_place: str,
) -> None:
    least = nixos_control.parameters()["tokens-per-second-min"]
    answer = _generation(nixos_host_config, nixos_machine, nixos_evidence, tokens=16)
    nixos_evidence.expect(f"at least {least} tokens per second")
    count, spent_ns = answer.get("eval_count"), answer.get("eval_duration")
    speed = 0.0
    if isinstance(count, int) and isinstance(spent_ns, int) and spent_ns > 0:
        speed = count / (spent_ns / 1e9)
    nixos_evidence.observe({"tokens per second": round(speed, 2), "tokens": count})
    assert speed > 0, f"the answer holds no eval_count and eval_duration: {answer.get('error')}"
    if nixos_place == "vm":
        not_applicable(
            f"a VM's speed says nothing of the host's ({speed:.1f} tokens per second were measured)"
        )
    assert speed >= least, f"{speed:.2f} tokens per second, expected at least {least}"


def _generation(
    host: HostConfig, machine: Machine, evidence: Evidence, *, tokens: int
) -> dict[str, Any]:
    """Let the first declared model say something; the answer as Ollama gives it, ``error`` where
    there is none.
    """
    declared = host.ollama
    if declared is None or not declared.models:
        not_applicable("the host declares no model for services.ollama to load")
    body = {
        "model": declared.models[0],
        "prompt": "Count from one to twenty.",
        "stream": False,
        "options": {"num_predict": tokens},
    }
    url = f"http://{_reachable(declared.host)}:{declared.port}"
    request = json.dumps(body).encode()
    last: list[dict[str, Any]] = [{}]

    def ask() -> bool | None:
        result = machine.run(
            _REQUEST.format(url=url),
            stdin=request,
            timeout_s=machine.deadline(_GENERATION_LIMIT_S).limit_s,
        )
        told = result.stdout_text if result.succeeded else result.stderr_text.strip()
        last[0] = _json_object(told)
        # Right after the boot the server may not listen yet, and the model may still be loading.
        return None if last[0].get("error") else True

    evidence.rest_on("unit", _OLLAMA)
    observe.poll_service(machine.run, _OLLAMA, ask, deadline=machine.deadline(_LOADED_S))
    evidence.attach("answer", json.dumps(last[0])[:2000])
    return last[0]


def _activate(machine: Machine, evidence: Evidence, name: str) -> tuple[int, str]:
    # `test` activates as `switch` does and leaves profile and boot loader alone.
    limit_s = machine.deadline(_ACTIVATION_LIMIT_S).limit_s
    result = machine.run(f"cd / && {_SWITCH} test 2>&1", timeout_s=limit_s)
    evidence.attach(name, result.stdout_text)
    return result.exit_status, result.stdout_text


def _starts(machine: Machine) -> dict[str, dict[str, str]]:
    """Return the properties of active services by name; those that end by themselves start at
    each activation.
    """
    found: dict[str, dict[str, str]] = {}
    for block in machine.run(_STARTS).stdout_text.split("\n\n"):
        unit = dict(line.partition("=")[::2] for line in block.splitlines())
        if unit.get("Id") and unit.get("InvocationID") and unit.get("Type") != "oneshot":
            found[unit["Id"]] = unit
    return found


def _restarted(before: dict[str, str], after: dict[str, str] | None) -> bool:
    """Whether something started the service anew; one that systemd restarted after a failure
    does not count.
    """
    if after is None or after["InvocationID"] == before["InvocationID"]:
        return False
    return after.get("NRestarts") == before.get("NRestarts") or after.get("NRestarts") == "0"


def _reachable(host: str) -> str:
    """Return the address at which the machine itself reaches `host`."""
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return host or "127.0.0.1"
    if address.is_unspecified:
        return "127.0.0.1" if address.version == 4 else "[::1]"
    return str(address) if address.version == 4 else f"[{address}]"


def _json_object(text: str) -> dict[str, Any]:
    try:
        answer = json.loads(text)
    except ValueError:
        return {"error": f"not JSON: {text[:200]}"}
    return answer if isinstance(answer, dict) else {"error": f"not an object: {text[:200]}"}
