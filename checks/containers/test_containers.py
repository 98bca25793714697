"""NixOS containers: what runs in one cannot see or touch the host."""

from __future__ import annotations

import re

import pytest

from pytest_nixos import Evidence, HostConfig, Machine, not_applicable, observe, poll

from .isolation import SCRIPT, Isolation, parse

_UNIT = re.compile(r"^container@(?P<name>[^@]+)\.service$")
_STARTED_S = 45.0


@pytest.mark.nixos_control("CTR-011")
def test_containers_are_isolated_from_the_host(
    nixos_host_config: HostConfig, nixos_machine: Machine, nixos_evidence: Evidence
) -> None:
    declared = sorted(
        found["name"]
        for name, unit in nixos_host_config.units.items()
        if (found := _UNIT.match(name)) and unit.wanted_by
    )
    if not declared:
        not_applicable("the host declares no container that starts with it")
    nixos_evidence.expect(dict.fromkeys(declared, "namespaces of its own, its root is nobody here"))
    last: dict[str, Isolation] = {}

    def look() -> bool | None:
        answer = nixos_machine.run(SCRIPT, stdin="".join(f"{n}\n" for n in declared).encode())
        last.update(parse(answer.stdout_text))
        idle = [n for n in declared if not (n in last and last[n].running)]
        hopeless = all(
            observe.is_hopeless(nixos_machine.run, f"container@{n}.service") for n in idle
        )
        return True if hopeless else None

    poll(look, deadline=nixos_machine.deadline(_STARTED_S), interval_s=2.0)
    running = [name for name in declared if name in last and last[name].running]
    shared = {name: list(last[name].problems) for name in running if last[name].problems}
    idle = [name for name in declared if name not in running]
    for name in idle:
        journal = f"journalctl --quiet --no-pager --unit=container@{name}.service -n 20"
        nixos_evidence.attach(f"journal of {name}", nixos_machine.run(journal).stdout_text)
    nixos_evidence.observe({"not isolated": shared, "not running": idle})
    if not running:
        nixos_evidence.rest_on("unit", *(f"container@{name}.service" for name in idle))
    assert running, f"no container runs, so nothing can be said of them: {idle}"
    assert not shared, f"not isolated from the host: {shared}"
