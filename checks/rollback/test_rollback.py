"""Rollback: a changed generation is activated, then taken back, and nothing of it stays.

The delta is harmless and touches what a switch handles in different ways: a file in /etc, a kernel
parameter, and a unit. One story is told once per host; each control judges a part of it.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import msgspec
import pytest

from pytest_nixos import (
    Evidence,
    HostConfig,
    Machine,
    not_applicable,
)

from .failed import FailedUnit, failed_units, newly_failed, parted, why_failed

if TYPE_CHECKING:
    from pytest_nixos import Generations, SwitchOutcome

_FILE = "/etc/pytest-nixos-generation"
_UNIT = "pytest-nixos-generation.service"
# Every NixOS host declares it (nixos/modules/config/sysctl.nix). A kernel parameter that only the
# changed generation declared would keep its value after the rollback: systemd-sysctl knows no
# former values.
SYSCTL = "fs.inotify.max_user_instances"
_SYSCTL_FILE = f"/proc/sys/{SYSCTL.replace('.', '/')}"
# Known beforehand, so that the generation is: lib.checkHost has it as an input of its derivation.
# Where one is in force already it would show nothing, and another takes its place.
_MARK = "changed by pytest-nixos"
_INSTANCES = ("524287", "524286")
_PROFILE = "/nix/var/nix/profiles/system"
_DONE = "done"

# A program takes an emulated guest as long as all that bash does here.
_LOOK = f"""
file= sysctl= failed=()
[ -r {_FILE} ] && file=$(<{_FILE})
[ -r {_SYSCTL_FILE} ] && sysctl=$(<{_SYSCTL_FILE})
mapfile -t failed < <(systemctl list-units --state=failed --plain --no-legend --no-pager)
printf 'file=%s\\n' "$file"
printf 'unit=%s\\n' "$(systemctl is-active {_UNIT})"
printf 'sysctl=%s\\n' "$sysctl"
printf 'current=%s\\n' "$(readlink -e /run/current-system)"
printf 'profile=%s\\n' "$(readlink -e {_PROFILE})"
printf 'now=%(%s)T\\n' -1
printf 'failed=%s\\n' "${{failed[*]%% *}}"
"""


def _changes_sysctl(host: HostConfig, place: str) -> bool:
    return host.sysctls.get(SYSCTL) is not None and place != "container"


def _expected_module(host: HostConfig, place: str) -> str:
    return changed_module(instances=_INSTANCES[0] if _changes_sysctl(host, place) else "")


def changed_module(mark: str = _MARK, instances: str = _INSTANCES[0]) -> str:
    """Return the module of the changed generation.

    :param instances: what it sets the kernel parameter to, ``""`` to leave it alone.
    """
    sysctl = f'boot.kernel.sysctl."{SYSCTL}" = lib.mkForce {instances};' if instances else ""
    return f"""
{{ pkgs, lib, ... }}: {{
  environment.etc."{_FILE.removeprefix("/etc/")}".text = "{mark}";
  {sysctl}
  systemd.services."{_UNIT.removesuffix(".service")}" = {{
    description = "Changed generation of pytest-nixos";
    wantedBy = [ "multi-user.target" ];
    serviceConfig = {{
      Type = "oneshot";
      RemainAfterExit = true;
      ExecStart = "${{pkgs.coreutils}}/bin/true";
    }};
  }};
}}
"""


pytestmark = pytest.mark.nixos_generation(make=_expected_module)


class Story(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen before the switch, after it, and after the rollback.

    :param failed: the units that failed meanwhile.
    :param instances: what the changed generation sets a kernel parameter to, ``""`` where it leaves
        it alone.
    """

    mark: str
    instances: str
    toplevel: str
    before: dict[str, str]
    switched: SwitchOutcome
    changed: dict[str, str]
    rolled_back: SwitchOutcome
    after: dict[str, str]
    failed: Mapping[str, FailedUnit]


@pytest.fixture(scope="module")
def story(
    nixos_host_config: HostConfig,
    nixos_place: str,
    nixos_machine: Machine,
    nixos_generations: Generations,
    nixos_progress: Callable[[str], None],
) -> Story:
    """Switch to a changed generation and roll back, looking each time."""
    before = _look(nixos_machine)
    mark = _MARK if before["file"] != _MARK else secrets.token_hex(8)
    instances = ""
    if _changes_sysctl(nixos_host_config, nixos_place):
        instances = next(n for n in _INSTANCES if n != before["sysctl"])
    nixos_progress("building a changed generation")
    toplevel = nixos_generations.build(changed_module(mark, instances))
    nixos_progress("switching to the changed generation")
    switched = nixos_generations.switch(toplevel, tells_restarts=False)
    if switched.refusal:
        nixos_generations.take_back_profile()
        not_applicable(
            "the host's own pre-switch checks refuse a switch; boot and a reboot are the way"
            f" (profile life): {switched.refusal}"
        )
    changed = _look(nixos_machine)
    nixos_progress("rolling back")
    rolled_back = nixos_generations.rollback(tells_restarts=False)
    after = _look(nixos_machine)
    newly = {*newly_failed(before, changed), *newly_failed(before, after)}
    return Story(
        failed=failed_units(nixos_machine, sorted(newly)),
        mark=mark,
        instances=instances,
        toplevel=toplevel,
        before=before,
        switched=switched,
        changed=changed,
        # The switch has started once more what had failed by itself.
        rolled_back=rolled_back.but_for(before["failed"].split()),
        after=after,
    )


@pytest.mark.nixos_destructive
@pytest.mark.nixos_control("RBK-001")
def test_switch_activates_a_changed_generation(story: Story, nixos_evidence: Evidence) -> None:
    nixos_evidence.attach("switch-to-configuration", story.switched.output)
    in_force = {"file": story.mark, "unit": "active", "current": story.toplevel}
    if story.instances:
        in_force["sysctl"] = story.instances
    expected = nixos_evidence.expect({**in_force, "ended": _DONE})
    observed = nixos_evidence.observe(
        {
            **{key: story.changed[key] for key in in_force},
            "ended": story.switched.verdict,
        }
    )
    nixos_evidence.rest_on("unit", *sorted(story.switched.failed - story.switched.unwell_before))
    assert observed["ended"] == _DONE, f"the switch did not end well: {observed['ended']}"
    assert observed == expected, "the changed generation is not what runs"


@pytest.mark.nixos_destructive
@pytest.mark.nixos_control("RBK-002")
def test_rollback_restores_the_running_system(story: Story, nixos_evidence: Evidence) -> None:
    nixos_evidence.attach("switch-to-configuration", story.rolled_back.output)
    expected = nixos_evidence.expect({"current": story.before["current"], "ended": _DONE})
    observed = nixos_evidence.observe(
        {
            "current": story.after["current"],
            "ended": story.rolled_back.verdict,
        }
    )
    nixos_evidence.rest_on(
        "unit", *sorted(story.rolled_back.failed - story.rolled_back.unwell_before)
    )
    assert observed["ended"] == _DONE, f"the rollback did not end well: {observed['ended']}"
    assert observed == expected, "another system runs than before"


@pytest.mark.nixos_destructive
@pytest.mark.nixos_control("RBK-003")
def test_system_profile_follows(story: Story, nixos_evidence: Evidence) -> None:
    nixos_evidence.expect({"switched": story.toplevel, "rolled back": story.before["current"]})
    nixos_evidence.observe(
        {"switched": story.changed["profile"], "rolled back": story.after["profile"]}
    )
    assert story.changed["profile"] == story.toplevel, "the profile did not follow the switch"
    assert story.after["profile"] == story.before["current"], "the profile did not follow back"


@pytest.mark.nixos_destructive
@pytest.mark.nixos_control("RBK-004")
def test_no_unit_fails_that_did_not_before(
    story: Story, nixos_host_config: HostConfig, nixos_evidence: Evidence
) -> None:
    since_s = int(story.before["now"] or 0)
    switched, timed = parted(newly_failed(story.before, story.changed), story.failed, since_s)
    rolled_back, later = parted(newly_failed(story.before, story.after), story.failed, since_s)
    nixos_evidence.expect({"by the switch": [], "by the rollback": []})
    by_timer = sorted({*timed, *later})
    also = {"started by their timer meanwhile, not judged": by_timer} if by_timer else {}
    nixos_evidence.observe({"by the switch": switched, "by the rollback": rolled_back, **also})
    for unit, about in story.failed.items():
        nixos_evidence.attach(f"journal of {unit}", about.journal)
    nixos_evidence.blame("unit", *{*switched, *rolled_back})
    failures = why_failed({*switched, *rolled_back}, story.failed, nixos_host_config)
    nixos_evidence.remedy = failures.remedy
    when = "switch" if switched else "rollback"
    assert not (switched or rolled_back), f"units fail since the {when}: {failures.words}"


@pytest.mark.nixos_destructive
@pytest.mark.nixos_control("RBK-005")
def test_nothing_of_the_change_stays(story: Story, nixos_evidence: Evidence) -> None:
    expected = nixos_evidence.expect({key: story.before[key] for key in ("file", "unit", "sysctl")})
    observed = nixos_evidence.observe({key: story.after[key] for key in expected})
    stayed = [key for key in expected if observed[key] != expected[key]]
    assert not stayed, f"still there after the rollback: {stayed}"


def _look(machine: Machine) -> dict[str, str]:
    lines = machine.run(_LOOK).stdout_text.splitlines()
    return {key: value.strip() for key, _, value in (line.partition("=") for line in lines)}
