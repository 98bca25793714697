"""Declared people log in by ssh with a key of theirs, and nobody whom sshd is to refuse does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import pytest

from pytest_nixos import (
    Evidence,
    HostConfig,
    LoginRefused,
    Machine,
    NixosError,
    PortState,
    not_applicable,
)

from .declared import declared_refusal, misspelt_names
from .dropped import JOURNAL, dying_words

_SETTINGS = "services.openssh.settings"
_MATCHES = r"grep -qiE '^\s*(match|include)\b' /etc/ssh/sshd_config"
# An account that has expired is to be refused (shadow(5), the eighth field, in days).
_EXPIRED = r"""
today=$(($(date +%s) / 86400))
getent shadow | while IFS=: read -r user _ _ _ _ _ _ expires _; do
  [[ $expires =~ ^[0-9]+$ ]] && ((expires <= today)) && printf '%s\n' "$user"
done
true
"""
_LOGIN_S = 120.0
_DIES = "sshd ends each connection"
# Whoever watches logins (fail2ban, PerSourcePenalties of sshd) shuts out who is refused again and
# again, and with them everything else that looks at the host from outside.
_MOST_REFUSED = 2


class Login(NamedTuple):
    """How a login ended.

    :param entered: ``None`` where none was tried.
    :param reads_declared: whether sshd reads the file of the keys that are declared.
    """

    entered: bool | None
    said: str
    reads_declared: bool = True


@pytest.mark.nixos_rests_on("unit:sshd.service")
@pytest.mark.nixos_control("SSH-025")
def test_every_user_with_a_declared_key_can_log_in(
    nixos_host_config: HostConfig, nixos_machine: Machine, nixos_evidence: Evidence
) -> None:
    settings = _settings(nixos_host_config)
    expired = set(nixos_machine.run(_EXPIRED).stdout_text.split())
    with_keys = [u for u in nixos_host_config.users.values() if u.authorized_keys and u.enabled]
    refused = {u.name: setting for u in with_keys if (setting := declared_refusal(u, settings))}
    if "root" not in refused and settings.get("PermitRootLogin") == "forced-commands-only":
        refused["root"] = "PermitRootLogin"
    _demand_known_names(nixos_host_config, settings, nixos_evidence)
    wanted = sorted(u.name for u in with_keys if u.name not in refused and u.name not in expired)
    if not wanted:
        not_applicable(
            "sshd is declared to refuse every user with declared keys"
            if with_keys
            else "no user declares keys (users.users.<name>.openssh.authorizedKeys)"
        )
    nixos_evidence.expect(dict.fromkeys(wanted, "a login"))
    ends = {user: _log_in(nixos_machine, user) for user in wanted}
    nixos_evidence.observe({user: end.said for user, end in ends.items()})
    wrong = [f"{user}: {end.said}" for user, end in ends.items() if end.entered is False]
    wrong += [
        f"{user}: sshd does not read the keys that are declared"
        for user, end in ends.items()
        if not end.reads_declared
    ]
    if wrong:
        _attach_journal(nixos_machine, nixos_evidence)
    if any(end.said.startswith(_DIES) for end in ends.values()):
        nixos_evidence.remedy = "# Correct what sshd dies of: journalctl -b -t sshd -t sshd-session"
    assert not wrong, "; ".join(wrong)
    _demand_tries(ends)


@pytest.mark.nixos_rests_on("unit:sshd.service")
@pytest.mark.nixos_control("SSH-026")
def test_whom_sshd_is_to_refuse_it_refuses_with_a_key(
    nixos_host_config: HostConfig, nixos_machine: Machine, nixos_evidence: Evidence
) -> None:
    settings = _settings(nixos_host_config)
    if nixos_machine.run(_MATCHES).succeeded:
        not_applicable("Match blocks decide who is refused, and from where")
    people = [
        u
        for u in nixos_host_config.users.values()
        if u.enabled and (u.is_normal or u.name == "root") and declared_refusal(u, settings)
    ]
    people.sort(key=lambda user: (user.name != "root", not user.authorized_keys, user.name))
    if not people:
        not_applicable("the host declares nobody whom sshd is to refuse")
    tried = [user.name for user in people[:_MOST_REFUSED]]
    nixos_evidence.expect(dict.fromkeys(tried, "refused"))
    ends = {user: _log_in(nixos_machine, user) for user in tried}
    nixos_evidence.observe({user: end.said for user, end in ends.items()})
    inside = [user for user, end in ends.items() if end.entered]
    assert not inside, f"sshd lets in: {', '.join(inside)}"
    _demand_tries(ends)


def _demand_known_names(host: HostConfig, settings: Mapping[str, Any], evidence: Evidence) -> None:
    """Fail where a setting that shuts people out misspells a name: whom it means is shut out, or
    let in.
    """
    people = [u.name for u in host.users.values() if u.is_normal or u.authorized_keys]
    slips = misspelt_names(settings, people, host.groups)
    if not slips:
        return
    evidence.remedy = "\n".join(
        f'# In {_SETTINGS}.{key} write "{meant}" in place of "{name}".'
        for (key, name), meant in slips.items()
    )
    told = [f"{key} names {name} (there is {meant})" for (key, name), meant in slips.items()]
    evidence.expect("names that the host declares")
    evidence.observe(told)
    pytest.fail(f"nobody has that name: {'; '.join(told)}", pytrace=False)


def _log_in(machine: Machine, user: str) -> Login:
    reads_declared = True
    try:
        with machine.ssh_login(user) as visitor:
            if not visitor.in_force.key_is_enough and visitor.in_force.accepts_keys:
                return Login(None, "a login takes more than a key")
            reads_declared = visitor.in_force.reads_declared_keys
            port = visitor.in_force.port
            if machine.probe_tcp([port])[port] is PortState.FILTERED:
                said = f"unknown: nothing answers at TCP port {port} from outside (a firewall?)"
                return Login(None, said, reads_declared)
            seen = visitor.run("id -un", timeout_s=_LOGIN_S)
    except LoginRefused as err:
        return Login(False, err.message, reads_declared)
    except NixosError as err:
        if died := dying_words(err.message, machine.run(JOURNAL).stdout_text):
            return Login(False, f"{_DIES}: {died}", reads_declared)
        return Login(None, f"unknown: {err.message}", reads_declared)
    ended = f"; the shell ends with {seen.exit_status}" if seen.exit_status else ""
    return Login(True, f"a login{ended}", reads_declared)


def _demand_tries(ends: Mapping[str, Login]) -> None:
    untried = [f"{user}: {end.said}" for user, end in ends.items() if end.entered is None]
    if untried:
        not_applicable("; ".join(untried))


def _attach_journal(machine: Machine, evidence: Evidence) -> None:
    evidence.attach("journal of sshd", machine.run(JOURNAL).stdout_text)


def _settings(host: HostConfig) -> Mapping[str, Any]:
    value = host.option(_SETTINGS).value
    return value if isinstance(value, dict) else {}
