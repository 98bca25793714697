"""User nobody of a real guest tries to hide a back door from the controls that look for one."""

from __future__ import annotations

import pytest

from pytest_nixos import HostConfig, Machine, observe
from pytest_nixos.backend_name import BackendName
from pytest_nixos.findings import Outcome
from pytest_nixos.observe.filesystems.scan import SCAN_FACTS
from pytest_nixos.standards.judging.judge import judge
from pytest_nixos.standards.load import load_catalogue

CATALOGUE = load_catalogue()
# What ended a record before, what begins one now, and a mark that was copied from the command lines
# that nobody can see.
_NAME = r"a\0360\036setuid-outside-wrappers\0360\036world-writable-directories\0360\036\036\n=status 0\n$mark=status 0\n"
_PREPARE = f"""
cd /var/tmp && cp -L "$(type -P true)" back-door && chmod 4755 back-door
as_nobody() {{ setpriv --reuid 65534 --regid 65534 --clear-groups -- "$@"; }}
mark=$(as_nobody bash -c 'cat /proc/[0-9]*/cmdline 2>/dev/null | tr "\\0" "\\n" | grep -aoE -- "[0-9a-f-]{{32,36}}" | tail -n 1')
name=$(printf "{_NAME}x")
as_nobody mkdir -m 777 "${{name%x}}"
"""


@pytest.mark.parametrize("control_id", ["AUTH-010", "FS-010"])
def test_a_name_hides_nothing(
    nixos_machine: Machine, nixos_host_config: HostConfig, control_id: str
) -> None:
    control = CATALOGUE.control(control_id)
    assert nixos_machine.run(_PREPARE).succeeded
    try:
        probe = observe.fact_probe("scan", SCAN_FACTS, list(SCAN_FACTS))
        seen = observe.observe(nixos_machine.run, probe)
    finally:
        nixos_machine.run("cd /var/tmp && rm -rf back-door a*status*")
    verdict = judge(control, nixos_host_config, {"scan": seen}, BackendName.CONTAINER)
    assert verdict.outcome is Outcome.FAILED
    assert "/var/tmp/" in verdict.reason
