"""sudo: what each account may really do, from what cvtsudoers prints (sudo 1.9.16) of rules."""

from __future__ import annotations

import json
from typing import Any

from pytest_nixos.backend_name import BackendName
from pytest_nixos.findings import Outcome
from pytest_nixos.observe.sudo import SudoRights, sudo_rights
from pytest_nixos.standards.judge import Verdict, judge
from pytest_nixos.standards.load import load_catalogue
from tests.unit.observe.here import parsed
from tests.unit.standards.samples import host_config

Json = Any
PASSWD = """\
root:x:0:0::/root:/bin/bash
alice:x:1000:100::/home/alice:/bin/bash
bob:x:1001:100::/home/bob:/bin/bash
eve:x:1002:100::/home/eve:/bin/bash
ops:x:1003:1003::/home/ops:/bin/bash
nagios:x:300:300::/var/empty:/bin/nologin
"""
GROUP = "wheel:x:1:bob\nusers:x:100:\ndeploy:x:200:eve\nops:x:1003:\n"
ALL: Json = [{"hostname": "ALL"}]


def user(*names: str) -> list[Json]:
    """Write a user list; ``%`` begins a group and ``!`` what is left out."""
    found: list[Json] = []
    for name in names:
        bare = name.lstrip("!")
        entry = {"usergroup": bare[1:]} if bare.startswith("%") else {"username": bare}
        found.append({**entry, "negated": True} if name.startswith("!") else entry)
    return found


def spec(who: list[Json], *commands: str, asks: bool | None = None, run_as: str = "ALL") -> Json:
    options = [] if asks is None else [{"authenticate": asks}]
    given = [
        {"command": c.lstrip("!"), **({"negated": True} if c.startswith("!") else {})}
        for c in commands
    ]
    cmnd = {"runasusers": [{"username": run_as}], "Options": options, "Commands": given}
    return {"User_List": who, "Host_List": ALL, "Cmnd_Specs": [cmnd]}


#: What stat(1) prints of ``/``, which is above every path.
TOP = "755 0 0 directory\0/\0"
ROOT, WHEEL = spec(user("root"), "ALL"), spec(user("%wheel"), "ALL")


def rights(
    *specs: Json, defaults: tuple[Json, ...] = (), stat: str = TOP, host: str = "sample"
) -> list[SudoRights]:
    rules = {"Defaults": list(defaults), "User_Specs": [ROOT, WHEEL, *specs]}
    text = (
        f"=passwd\n{PASSWD}=group\n{GROUP}=host\n{host}\n=rules\n{json.dumps(rules)}\n"
        f"=links\n=entries\n{stat}\n=complete\n"
    )
    found = parsed(sudo_rights(), text)
    assert isinstance(found, list)
    return found


def verdict(control: str, found: list[SudoRights]) -> Verdict:
    needed = {"security.sudo.enable": True, "security.sudo.wheelNeedsPassword": True}
    host = host_config(options=needed)
    return judge(load_catalogue().control(control), host, {"sudo": found}, BackendName.VM)


def bound(binding: list[Json], **options: Json) -> Json:
    return {"Binding": binding, "Options": [options]}


def test_wheel_with_a_password_is_fine() -> None:
    found = rights()
    assert [r.account for r in found] == ["bob"]
    for control in ("AUTH-007", "AUTH-008", "AUTH-029", "AUTH-030"):
        assert verdict(control, found).outcome is Outcome.PASSED, control


def test_a_rule_for_one_user_is_seen_though_wheel_needs_its_password() -> None:
    wrong = verdict("AUTH-007", rights(spec(user("alice"), "/bin/x", asks=False)))
    assert wrong.outcome is Outcome.FAILED and "alice: /bin/x" in wrong.reason


def test_defaults_of_one_user_command_or_group_turn_the_question_off() -> None:
    rule = spec(user("alice", "eve"), "/bin/x", "/bin/y")
    by_user = rights(rule, defaults=(bound(user("eve"), authenticate=False),))
    assert "eve: /bin/x, /bin/y" in verdict("AUTH-007", by_user).reason
    assert "alice" not in verdict("AUTH-007", by_user).reason
    by_command = rights(rule, defaults=(bound([{"command": "/bin/y"}], authenticate=False),))
    assert "alice: /bin/y" in verdict("AUTH-007", by_command).reason
    exempt = rights(rule, defaults=({"Options": [{"exempt_group": "deploy"}]},))
    assert "eve" in verdict("AUTH-007", exempt).reason
    assert "alice" not in verdict("AUTH-007", exempt).reason


def test_the_last_rule_that_matches_counts() -> None:
    first = spec(user("alice"), "ALL", asks=False)
    again = spec(user("alice"), "ALL", asks=True)
    assert verdict("AUTH-007", rights(first, again)).outcome is Outcome.PASSED
    assert verdict("AUTH-007", rights(again, first)).outcome is Outcome.FAILED
    taken = rights(spec(user("alice"), "/bin/x", asks=False), spec(user("alice"), "!/bin/x"))
    assert verdict("AUTH-007", taken).outcome is Outcome.PASSED
    # A list that takes somebody out, and a group.
    listed = rights(spec(user("%users", "!alice"), "/bin/x", asks=False))
    reason = verdict("AUTH-007", listed).reason
    assert "eve" in reason and "alice" not in reason


def test_all_users_are_the_persons() -> None:
    found = rights(spec(user("ALL"), "/bin/x", asks=False))
    assert [r.account for r in found] == ["alice", "bob", "eve", "ops"]
    named = rights(spec(user("nagios"), "/bin/x", asks=False))
    assert "nagios" in [r.account for r in named]


def test_a_rule_for_another_host_says_nothing() -> None:
    other = {**spec(user("alice"), "ALL", asks=False), "Host_List": [{"hostname": "elsewhere"}]}
    assert verdict("AUTH-007", rights(other)).outcome is Outcome.PASSED


def test_one_user_is_remembered_for_ever() -> None:
    short = {"Options": [{"timestamp_timeout": "0"}]}
    long = bound(user("bob"), timestamp_timeout="-1")
    assert verdict("AUTH-008", rights(defaults=(short,))).outcome is Outcome.PASSED
    wrong = verdict("AUTH-008", rights(defaults=(short, long)))
    assert wrong.outcome is Outcome.FAILED and "bob is -1" in wrong.reason


def test_all_of_root_outside_of_wheel() -> None:
    wrong = verdict("AUTH-029", rights(spec(user("alice"), "ALL")))
    assert wrong.outcome is Outcome.FAILED and "alice: ALL" in wrong.reason
    shell = verdict("AUTH-029", rights(spec(user("%deploy"), "/run/current-system/sw/bin/bash")))
    assert "eve" in shell.reason
    narrow = rights(spec(user("alice"), "/run/current-system/sw/bin/systemctl restart web"))
    assert verdict("AUTH-029", narrow).outcome is Outcome.PASSED
    as_other = rights(spec(user("alice"), "ALL", run_as="postgres"))
    assert verdict("AUTH-029", as_other).outcome is Outcome.PASSED


def stat(*entries: tuple[str, str, int, int, str]) -> str:
    return "".join(f"{mode} {u} {g} {what}\0{path}\0" for path, mode, u, g, what in entries)


def test_a_program_that_its_user_can_write_is_all_of_root() -> None:
    rule = spec(user("alice"), "/home/alice/bin/deploy now")
    own = stat(
        ("/", "755", 0, 0, "directory"), ("/home", "755", 0, 0, "directory"),
        ("/home/alice", "700", 1000, 100, "directory"), ("/home/alice/bin", "755", 0, 0, "directory"),
        ("/home/alice/bin/deploy", "755", 0, 0, "regular file"),
    )  # fmt: skip
    wrong = verdict("AUTH-030", rights(rule, stat=own))
    assert wrong.outcome is Outcome.FAILED
    assert "alice (by /home/alice)" in wrong.reason
    safe = own.replace("700 1000", "755 0")
    assert verdict("AUTH-030", rights(rule, stat=safe)).outcome is Outcome.PASSED


def test_a_wildcard_for_a_directory_is_anybodys() -> None:
    wrong = verdict("AUTH-030", rights(spec(user("alice"), "/home/*/bin/deploy")))
    assert wrong.outcome is Outcome.FAILED and "such a name" in wrong.reason
    last = verdict("AUTH-030", rights(spec(user("alice"), "/run/current-system/sw/bin/nix*")))
    assert last.outcome is Outcome.PASSED


def test_what_cannot_be_told_is_no_pass() -> None:
    assert isinstance(parsed(sudo_rights(), "", 3), str)
    assert isinstance(parsed(sudo_rights(), "", 4), str)
    assert parsed(sudo_rights(), "=rules\n{", 5) is None
    assert parsed(sudo_rights(), "=rules\n[]\n=complete\n") is None
    rules = json.dumps({"User_Specs": [WHEEL]})
    no_accounts = f"=passwd\n\n=group\n{GROUP}=rules\n{rules}\n=complete\n"
    assert parsed(sudo_rights(), no_accounts) is None
    rules = json.dumps({"User_Specs": [spec(user("alice"), "/home/alice/x")]})
    text = f"=passwd\n{PASSWD}=group\n{GROUP}=host\nx\n=rules\n{rules}\n=links\n=entries\n"
    assert parsed(sudo_rights(), f"{text}\n=complete\n") is None
    assert parsed(sudo_rights(), f"{text}{TOP}\n=complete\n") is not None
