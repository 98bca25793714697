"""Rules of sudo and doas name accounts, groups and programs that are there."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

import pytest

from pytest_nixos import Evidence, HostConfig, Observations, not_applicable, observe

from .lists import named_in_options
from .rules import Rule, Slip, There, doas_rules, slips, sudo_rules

_READ = r"""
title users; while IFS=: read -r name _; do printf '%s\n' "$name"; done </etc/passwd
title groups; while IFS=: read -r name _; do printf '%s\n' "$name"; done </etc/group
title files; for file in {files}; do [ -e "$file" ] && printf '%s\n' "$file"; done
title programs; shopt -s nullglob
for file in /run/wrappers/bin/* /run/current-system/sw/bin/*; do printf '%s\n' "${{file##*/}}"; done
title names
while read -r key words; do
  case $key in passwd:|group:) printf '%s\n' $words;; esac
done </etc/nsswitch.conf
"""
# Who else knows accounts makes them from what is here (nss-systemd(8), nss-mymachines(8)).
_LOCAL = {"files", "systemd", "compat", "mymachines", "[success=merge]"}


@pytest.mark.nixos_control("AUTH-042")
def test_rules_of_sudo_name_what_is_there(
    nixos_host_config: HostConfig, nixos_observations: Observations, nixos_evidence: Evidence
) -> None:
    option = "security.sudo.extraRules"
    rules = [*sudo_rules(nixos_host_config.option(option).value)]
    _judge(option, rules, nixos_observations, nixos_evidence)


@pytest.mark.nixos_control("AUTH-043")
def test_rules_of_doas_name_what_is_there(
    nixos_host_config: HostConfig, nixos_observations: Observations, nixos_evidence: Evidence
) -> None:
    option = "security.doas.extraRules"
    rules = [*doas_rules(nixos_host_config.option(option).value)]
    _judge(option, rules, nixos_observations, nixos_evidence)


@pytest.mark.nixos_control("AUTH-044")
def test_lists_of_accounts_name_those_that_are_there(
    nixos_host_config: HostConfig, nixos_observations: Observations, nixos_evidence: Evidence
) -> None:
    named = list(named_in_options(nixos_host_config))
    if not named:
        not_applicable("no list of the host names an account or a group")
    there = _there(nixos_observations, ())
    nixos_evidence.expect("every name is that of an account or a group")
    found = [(option, slip) for option, rule in named for slip in slips([rule], there)]
    nixos_evidence.observe([f"{option}: {slip}" for option, slip in found])
    nixos_evidence.remedy = "\n".join(_mend(option, slip) for option, slip in found)
    assert not found, "; ".join(f"{option}: {slip}" for option, slip in found)


def _judge(option: str, rules: list[Rule], observations: Observations, evidence: Evidence) -> None:
    if not rules:
        not_applicable(f"{option} has no rule that names anybody")
    there = _there(observations, {program for rule in rules for program in rule.programs})
    evidence.expect("every name and every program of a rule is there")
    found = slips(rules, there)
    evidence.observe([str(slip) for slip in found])
    evidence.remedy = "\n".join(_mend(option, slip) for slip in found)
    assert not found, "; ".join(map(str, found))


def _mend(option: str, slip: Slip) -> str:
    if slip.meant:
        return f"# In {option}: {slip.meant}, not {slip.name}."
    if slip.kind == "program":
        return f"# In {option}: ${{pkgs.hello}}/bin/hello names a program of a package, in place of {slip.name}."
    if slip.kind == "group":
        return f'users.groups."{slip.name}" = {{ }};'
    return f"# In {option}: name an account that is declared, not {slip.name}."


def _there(observations: Observations, programs: Iterable[str]) -> There:
    asked = " ".join(shlex.quote(path) for path in sorted(programs))
    there = observations.of(
        observe.Probe(name="named-in-rules", script=_READ.format(files=asked), parse=_parse)
    )
    if there is None:
        not_applicable("unknown: the guest does not tell its accounts and programs")
    return there


def _parse(output: observe.ProbeOutput) -> There | None:
    sections = output.sections
    if "root" not in sections.get("users", ()) or not any(sections.get("programs", ())):
        return None
    return There(
        users=sections["users"],
        groups=sections.get("groups", []),
        files=sections.get("files", []),
        programs=sections["programs"],
        is_all=set(filter(None, sections.get("names", ()))) <= _LOCAL,
    )
