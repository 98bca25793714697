"""Secrets of the host in a running machine: what it declares of them, and what it does with them."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

import pytest

from pytest_nixos import (
    Evidence,
    HostConfig,
    Machine,
    Observations,
    Secret,
    not_applicable,
    observe,
)

from .leaks import leaks, searched
from .missing import Lacking, lacking_of
from .on_disk import declared, differences, generation_of, look, subject_name

if TYPE_CHECKING:
    from pytest_nixos import TestSecrets

_SWITCH_LIMIT_S = 180.0
_STARTED = (
    "systemctl show --timestamp=unix --property=Id,InactiveExitTimestamp,InvocationID {units}"
)


def _declared(host: HostConfig) -> tuple[Secret, ...]:
    found = declared(host)
    if not found:
        not_applicable("the host declares no secrets with sops-nix or agenix")
    return found


@pytest.mark.nixos_control("SEC-011")
def test_files_of_secrets_are_there(
    nixos_host_config: HostConfig,
    nixos_machine: Machine,
    nixos_observations: Observations,
    nixos_evidence: Evidence,
) -> None:
    wanted = lacking_of(nixos_host_config)
    if not wanted:
        not_applicable("the config names no file of a secret beside those of sops-nix and agenix")
    paths = " ".join(shlex.quote(lack.path) for lack in wanted if lack.path)
    there = nixos_machine.run(
        f'for path in {paths}; do [ ! -e "$path" ] || echo "$path"; done; true'
    ).stdout_text.splitlines()
    units = sorted({lack.unit for lack in wanted if lack.unit})
    states = nixos_observations.of(
        observe.units(units, properties=("ActiveState",), name="units-with-secrets")
    )
    down = {u for u, s in states.items() if s.get("ActiveState") not in ("active", "reloading")}
    missing = [lack for lack in wanted if _is_lacking(lack, there, down)]
    nixos_evidence.expect({lack.about: "there" for lack in wanted})
    nixos_evidence.observe({lack.about: lack.words for lack in missing})
    nixos_evidence.blame("secret", *(lack.path or lack.about for lack in missing))
    nixos_evidence.blame("unit", *(lack.unit for lack in missing if lack.unit in down))
    given = [f"#   --nixos-secret {lack.path}={lack.kind}" for lack in missing if lack.remediable]
    if given:
        nixos_evidence.remedy = "\n".join(
            ["# Give the test machine a file of your own (PATH=FILE), or have one made:", *given]
        )
    assert not missing, "; ".join(f"{lack.about}: {lack.words}" for lack in missing)


def _is_lacking(lack: Lacking, there: list[str], down: set[str]) -> bool:
    if lack.encrypted:
        return lack.unit in down
    return lack.path not in there and (not lack.unit or lack.unit in down)


@pytest.mark.nixos_control("SEC-012")
def test_secrets_are_decrypted_before_their_units_start(
    nixos_host_config: HostConfig, nixos_machine: Machine, nixos_evidence: Evidence
) -> None:
    secrets = _declared(nixos_host_config)
    files = look(nixos_machine, secrets)
    nixos_evidence.expect("each secret is there before what names it starts")
    absent = {s.path: s for s in secrets if s.path not in files}
    problems = {f"{secret.option}: {path}": "is not there" for path, secret in absent.items()}
    nixos_evidence.blame("secret", *(subject_name(secret) for secret in absent.values()))
    if not absent and any((generation_of(file) or 1) > 1 for file in files.values()):
        not_applicable("unknown: the secrets were decrypted again since the boot")
    users = {s.path: nixos_host_config.units_naming(s.path) for s in secrets}
    units = sorted({unit for names in users.values() for unit in names})
    started = _starts(nixos_machine, units)
    for secret in secrets:
        file = files.get(secret.path)
        for unit in users[secret.path] if file else ():
            at_s = started.get(unit, ("", 0))[1]
            if file is not None and at_s and at_s < file.changed_s:
                problems[f"{secret.path} and {unit}"] = (
                    f"decrypted {file.changed_s - at_s} s after its start"
                )
                nixos_evidence.blame("unit", unit)
    nixos_evidence.observe(problems)
    assert not problems, "; ".join(f"{about}: {what}" for about, what in problems.items())


@pytest.mark.nixos_control("SEC-013")
def test_secrets_have_the_declared_owner_and_mode(
    nixos_host_config: HostConfig, nixos_machine: Machine, nixos_evidence: Evidence
) -> None:
    secrets = _declared(nixos_host_config)
    files = look(nixos_machine, secrets)
    nixos_evidence.expect({s.path: f"{s.owner or 0}:{s.group or 0} {s.mode}" for s in secrets})
    wrong = {
        secret.path: found
        for secret in secrets
        if secret.path in files and (found := differences(secret, files[secret.path]))
    }
    nixos_evidence.observe(wrong)
    missing = [secret for secret in secrets if secret.path not in files]
    for secret in missing:
        nixos_evidence.rest_on("secret", subject_name(secret))
    assert not wrong and not missing, "; ".join(
        [f"{secret.path} is not there" for secret in missing]
        + [
            f"{path}: {name} is {real}, declared is {wanted}"
            for path, found in wrong.items()
            for name, (wanted, real) in found.items()
        ]
    )


@pytest.mark.nixos_control("SEC-014")
def test_secrets_are_seen_by_nobody_else(
    nixos_host_config: HostConfig,
    nixos_machine: Machine,
    nixos_test_secrets: TestSecrets,
    nixos_evidence: Evidence,
) -> None:
    _declared(nixos_host_config)
    wanted = searched(nixos_test_secrets)
    if not wanted:
        not_applicable("unknown: the values of the secrets are not known, or too short to be found")
    nixos_evidence.expect([])
    found = leaks(nixos_machine, nixos_host_config, wanted)
    # Where it was seen, and never the value.
    nixos_evidence.observe([f"{secret.option}: {where}" for secret, where in found])
    assert not found, "; ".join(f"{secret.option} is in the {where}" for secret, where in found)


@pytest.mark.nixos_requires("vm", "container")
@pytest.mark.nixos_control("SEC-015")
def test_switch_replaces_secrets(
    nixos_host_config: HostConfig,
    nixos_test_secrets: TestSecrets,
    nixos_fresh_machine: Machine,
    nixos_evidence: Evidence,
) -> None:
    _declared(nixos_host_config)
    if nixos_test_secrets.real or not nixos_test_secrets.secrets:
        not_applicable("the machine has no test secrets that could be changed")
    machine, after = nixos_fresh_machine, nixos_test_secrets.rotated(nixos_host_config)
    secrets = [s for s in after.secrets if not s.needed_for_users]
    units = sorted({unit for secret in secrets for unit in secret.restart_units})
    before = _starts(machine, units)
    for secret in secrets:
        machine.files.write(after.file_of(secret), after.encrypted(secret), mode=0o400)
    done = machine.run(
        "cd / && /run/current-system/bin/switch-to-configuration test 2>&1",
        timeout_s=machine.deadline(_SWITCH_LIMIT_S).limit_s,
    )
    nixos_evidence.attach("switch-to-configuration test", done.stdout_text)
    nixos_evidence.expect(
        "every secret has its new value, and the units that want it are restarted"
    )
    problems = {}
    for secret in secrets:
        text = machine.files.read(secret.path).decode(errors="surrogateescape")
        if any(part.strip() not in text for part in after.texts_of(secret) if "\n" not in part):
            problems[secret.path] = "has its old value"
    started = _starts(machine, units)
    for unit in units:
        if unit in before and before[unit][1] and before[unit][0] == started.get(unit, ("", 0))[0]:
            problems[unit] = "was not restarted"
    nixos_evidence.observe(problems)
    assert not problems, "; ".join(f"{about} {what}" for about, what in problems.items())


def _starts(machine: Machine, units: list[str]) -> dict[str, tuple[str, int]]:
    """Return invocation and start (seconds since 1970, 0 for never) of units."""
    if not units:
        return {}
    command = _STARTED.format(units=" ".join(map(shlex.quote, units)))
    found = {}
    for block in machine.run(command).stdout_text.split("\n\n"):
        values = dict(line.partition("=")[::2] for line in block.splitlines())
        at = re.fullmatch(r"@(\d+)", values.get("InactiveExitTimestamp", ""))
        found[values.get("Id", "")] = (values.get("InvocationID", ""), int(at[1]) if at else 0)
    return found
