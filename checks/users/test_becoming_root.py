"""Members of wheel become root by sudo and doas, with their password where one is asked for."""

from __future__ import annotations

import pytest

from pytest_nixos import Evidence, HostConfig, Machine, NixosError, not_applicable

from .more_than_a_password import more_than_a_password

_PROMPT = b"pytest-nixos-asks:"
# What is typed is echoed: a shell puts the words together that are waited for.
_ASK = {
    "sudo": "sudo -k -p pytest-nixos''-asks: id -u; echo end''ed",
    "doas": "doas -L; doas id -u; echo end''ed",
}
_ASKED = {"sudo": _PROMPT, "doas": rb"password:"}
_ROOT = rb"[\r\n]0[\r\n]"
_ENDED = rb"ended[\r\n]"
# sudoers(5): the password of the target, of root or of runas_default is asked for, in place of one's own.
_ASKS_FOR_ANOTHERS = r"grep -rhoE '^\s*Defaults[^#]*[[:space:],](targetpw|rootpw|runaspw)\b' /etc/sudoers /etc/sudoers.d 2>/dev/null"
# shadow(5): no password opens an account whose entry begins so. Nothing else of an entry is printed.
_LOCKED = r"""
getent shadow | while IFS=: read -r user field _; do
  [[ $field == [*!]* ]] && printf '%s\n' "$user"
done
true
"""
_ANSWER_S = 60.0
_MOST_TRIED = 3


@pytest.mark.nixos_control("AUTH-038")
def test_members_of_wheel_become_root_by_sudo(
    nixos_host_config: HostConfig, nixos_machine: Machine, nixos_evidence: Evidence
) -> None:
    _judge("sudo", nixos_host_config, nixos_machine, nixos_evidence)


@pytest.mark.nixos_control("AUTH-039")
def test_members_of_wheel_become_root_by_doas(
    nixos_host_config: HostConfig, nixos_machine: Machine, nixos_evidence: Evidence
) -> None:
    _judge("doas", nixos_host_config, nixos_machine, nixos_evidence)


def _judge(program: str, host: HostConfig, machine: Machine, evidence: Evidence) -> None:
    import pexpect

    people = [u for u in host.users.values() if u.is_normal and u.enabled]
    wheel = sorted(u.name for u in people if "wheel" in (u.group, *u.extra_groups))[:_MOST_TRIED]
    if not wheel:
        not_applicable("no normal user of the host is in wheel")
    if program == "sudo" and (other := machine.run(_ASKS_FOR_ANOTHERS).stdout_text.strip()):
        not_applicable(f"sudo asks for a password of somebody else: {_last(other)}")
    asks = host.option(f"security.{program}.wheelNeedsPassword").value is not False
    wanted = f"root by {program}"
    locked = set(machine.run(_LOCKED).stdout_text.split()) if asks else set()
    evidence.expect(dict.fromkeys(wheel, wanted))
    seen: dict[str, str] = {}
    wrong: list[str] = []
    unknown: list[str] = []
    for user in wheel:
        if user in locked:
            seen[user] = "unknown: no password opens the account"
            unknown.append(f"{user}: {seen[user]}")
            continue
        try:
            said = (_with_password if asks else _unasked)(machine, user, program)
        except (NixosError, pexpect.ExceptionPexpect) as err:
            # Whether the account can log in at all is AUTH-037's.
            said, tried = f"unknown: no login: {str(err).splitlines()[0]}", False
        else:
            tried = True
        seen[user] = said or wanted
        if said:
            (wrong if tried else unknown).append(f"{user}: {said}")
    evidence.observe(seen)
    if wrong and (more := more_than_a_password(machine, program)):
        not_applicable(f"{more}: {'; '.join(wrong)}")
    assert not wrong, "; ".join(wrong)
    if unknown:
        not_applicable("; ".join(unknown))


def _unasked(machine: Machine, user: str, program: str) -> str:
    done = machine.as_user(user).run(f"{program} -n id -u")
    if done.exit_status == 0 and done.stdout_text.strip() == "0":
        return ""
    return f"{program} refuses: {_last(done.stderr_text)}"


def _with_password(machine: Machine, user: str, program: str) -> str:
    with machine.login(user) as terminal:
        terminal.sendline(_ASK[program])
        asked = terminal.expect([_ASKED[program], _ROOT, _ENDED], timeout=_ANSWER_S)
        if asked == 1:  # by another rule; whether it should ask is AUTH-007's and AUTH-031's
            return ""
        if asked == 0:
            terminal.sendline(terminal.password)
            if terminal.expect([_ROOT, _ASKED[program], _ENDED], timeout=_ANSWER_S) == 0:
                return ""
        return f"{program} refuses: {_last(bytes(terminal.before or b'').decode(errors='replace'))}"


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "nothing is said"
