"""sudo: what each account may really do, from what cvtsudoers prints (sudo 1.9.16) of rules."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from pytest_nixos.backend_name import BackendName
from pytest_nixos.findings import Outcome
from pytest_nixos.observe.accounts.sudo import SudoRights, sudo_rights
from pytest_nixos.observe.base import Probe
from pytest_nixos.observe.filesystems.writers import parse_entries
from pytest_nixos.standards.judging.judge import Verdict, judge
from pytest_nixos.standards.load import load_catalogue
from tests.unit.observe.here import ask, moved, parsed
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
GROUP = "root:x:0:\nwheel:x:1:bob\nusers:x:100:\nremote:x:210:dom\ndeploy:x:200:eve\nops:x:1003:\n"
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
    plain = [{k: v for k, v in entry.items() if k != "mark"} for entry in defaults]
    rules = {"Defaults": plain, "User_Specs": [ROOT, WHEEL, *specs]}
    marks = "\n".join(entry.get("mark", "-") for entry in defaults)
    text = (
        f"=passwd\n{PASSWD}=group\n{GROUP}=host\n{host}\n=now\n20261129000000Z\n"
        f"=rules\n{json.dumps(rules)}\n=marks\n{marks}\n=links\n=entries\n{stat}\n=complete\n"
    )
    found = parsed(sudo_rights(), text)
    assert isinstance(found, list)
    return found


def verdict(control: str, found: list[SudoRights]) -> Verdict:
    needed = {"security.sudo.enable": True, "security.sudo.wheelNeedsPassword": True}
    host = host_config(options=needed)
    return judge(load_catalogue().control(control), host, {"sudo": found}, BackendName.VM)


def bound(binding: list[Json], mark: str = ":", **options: Json) -> Json:
    """Write ``Defaults:alice``, ``Defaults>root`` or ``Defaults!/bin/x``; JSON has no marks."""
    return {"Binding": binding, "Options": [options], "mark": mark}


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
    assert [r.account for r in found] == ["alice", "bob", "dom", "eve", "ops"]
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


def given(who: str, *commands: Json, **spec_of: Json) -> Json:
    """Write a rule from its JSON, for what :func:`spec` has no words."""
    found = [c if isinstance(c, dict) else {"command": c} for c in commands]
    hosts = spec_of.pop("hosts", ALL)
    cmnd = {"Commands": found, **spec_of}
    return {"User_List": user(who), "Host_List": hosts, "Cmnd_Specs": [cmnd]}


def unasked(*specs: Json, defaults: tuple[Json, ...] = ()) -> str:
    return verdict("AUTH-007", rights(*specs, defaults=defaults)).reason


def test_defaults_of_a_command_are_found_in_a_wider_rule_and_beside_arguments() -> None:
    off = bound([{"command": "/bin/bash"}], "!", authenticate=False)
    assert unasked(spec(user("alice"), "ALL"), defaults=(off,)) == (
        "is alice: /bin/bash, bob: /bin/bash, expected an empty list"
    )
    for one in ("/bin/b*", "/bin/"):
        assert "alice: /bin/bash," in unasked(spec(user("alice"), one), defaults=(off,)), one
    for one in ("/bin/bash -l", "/usr/bin/bash", "^/bin/bash$"):
        assert f"alice: {one}" in unasked(spec(user("alice"), one), defaults=(off,)), one
    assert "alice" not in unasked(spec(user("alice"), "/bin/ls"), defaults=(off,))
    # A tag of the rule itself is stronger than any Defaults.
    assert "alice" not in unasked(spec(user("alice"), "/bin/bash", asks=True), defaults=(off,))
    # Of a list, the last that matches counts.
    but = bound([{"command": "/bin/*"}, {"command": "/bin/bash", "negated": True}], "!", authenticate=False)  # fmt: skip
    assert "alice" not in unasked(spec(user("alice"), "/bin/bash"), defaults=(but,))
    assert "alice: /bin/ls" in unasked(spec(user("alice"), "/bin/ls"), defaults=(but,))


def test_defaults_of_a_command_count_last() -> None:
    off = bound([{"command": "/bin/x"}], "!", authenticate=False)
    rule, again = spec(user("alice"), "/bin/x"), {"Options": [{"authenticate": True}]}
    assert "alice: /bin/x" in unasked(rule, defaults=(off, again))
    on = bound([{"command": "/bin/x"}], "!", authenticate=True)
    never = {"Options": [{"authenticate": False}]}
    assert "alice" not in unasked(rule, defaults=(on, never))
    assert "alice" in unasked(spec(user("alice"), "/bin/y"), defaults=(on, never))


def test_defaults_of_whom_a_command_is_run_as() -> None:
    off = bound(user("root"), ">", authenticate=False)
    rule = spec(user("alice"), "/bin/x", run_as="root")
    assert "alice: /bin/x" in unasked(rule, defaults=(off,))
    assert "alice: /bin/x" in unasked(rule, defaults=({**off, "mark": "?"},))
    assert "bob: ALL" in unasked(defaults=(off,))
    other = bound(user("eve"), ">", authenticate=False)
    assert "alice" not in unasked(rule, defaults=(other,))
    assert "bob: ALL" in unasked(defaults=(other,))
    of_user = bound(user("root"), ":", authenticate=False)
    assert "alice" not in unasked(rule, defaults=(of_user,))


def test_defaults_of_a_netgroup_may_be_meant_and_take_nothing_away() -> None:
    group = [{"netgroup": "staff"}]
    assert "bob: ALL" in unasked(defaults=(bound(group, authenticate=False),))
    never = {"Options": [{"authenticate": False}]}
    assert "bob: ALL" in unasked(defaults=(never, bound(group, authenticate=True)))
    long = verdict("AUTH-008", rights(defaults=(bound(group, timestamp_timeout="-1"),)))
    assert "bob is -1" in long.reason


def test_what_defaults_say_of_one_command_counts_in_a_wider_rule() -> None:
    long = bound([{"command": "/bin/x"}], "!", timestamp_timeout="-1")
    assert "bob is -1" in verdict("AUTH-008", rights(defaults=(long,))).reason
    exempt = bound([{"command": "/bin/x"}], "!", exempt_group="wheel")
    assert unasked(defaults=(exempt,)) == "is bob: /bin/x, expected an empty list"


def test_a_member_of_a_group_without_an_account_of_its_own_is_somebody() -> None:
    found = rights(spec(user("%remote"), "ALL", asks=False))
    for control in ("AUTH-007", "AUTH-029"):
        assert "dom: ALL" in verdict(control, found).reason


def test_exempt_is_exempt_whatever_the_rule_says() -> None:
    exempt = {"Options": [{"exempt_group": "deploy"}]}
    assert "eve: /bin/x" in unasked(spec(user("eve"), "/bin/x", asks=True), defaults=(exempt,))


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        ({"usergroup": "domain_admins"}, "%domain_admins"),
        ({"netgroup": "admins"}, "+admins"),
        ({"nonunixgroup": "admins"}, "%:admins"),
        ({"username": "ldap"}, "ldap"),
        ({"userid": 70000}, "#70000"),
        ({"usergid": 70000}, "%#70000"),
    ],
)
def test_a_rule_about_somebody_whom_nobody_lists_is_told_under_its_name(
    entry: Json, name: str
) -> None:
    found = rights(spec([entry], "ALL", asks=False))
    for control in ("AUTH-007", "AUTH-029"):
        assert verdict(control, found).reason == f"is {name}: ALL, expected an empty list"
    taken = rights(spec([entry], "ALL", asks=False), spec([entry], "!ALL"))
    assert verdict("AUTH-007", taken).outcome is Outcome.PASSED


def test_what_may_be_meant_gives_and_takes_nothing_away() -> None:
    first, away = spec(user("alice"), "ALL", asks=False), [{"networkaddr": "10.0.0.0/8"}]
    assert "alice: ALL" in unasked(
        given("alice", "ALL", hosts=away, Options=[{"authenticate": False}])
    )
    assert "alice: ALL" in unasked(first, {**spec(user("alice"), "!ALL"), "Host_List": away})
    assert "alice: ALL" in unasked(
        first, given("alice", {"command": "ALL", "sha224": "x", "negated": True})
    )
    later = given("alice", "ALL", Options=[{"notafter": "20400101000000Z"}, {"authenticate": True}])
    assert "alice: ALL" in unasked(first, later)
    but = spec([*user("ALL"), {"netgroup": "x", "negated": True}], "ALL", asks=True)
    assert "alice: ALL" in unasked(first, but)
    group = given("alice", "ALL", Options=[{"authenticate": False}],
                  runasusers=user("ALL"), runasgroups=[{"usergroup": "ALL"}])  # fmt: skip
    assert "alice: ALL" in unasked(group, spec(user("alice"), "ALL", asks=True))


def test_a_wider_rule_that_comes_later_asks() -> None:
    echo = spec(user("alice"), "/bin/echo", asks=False)
    for wide in ("/bin/*", "/bin/", "ALL"):
        assert "alice" not in unasked(echo, spec(user("alice"), wide, asks=True)), wide
    assert "alice: /bin/echo" in unasked(echo, spec(user("alice"), "/bin/l*", asks=True))


def test_whom_it_is_run_as() -> None:
    def root(*specs: Json, defaults: tuple[Json, ...] = ()) -> str:
        return verdict("AUTH-029", rights(*specs, defaults=defaults)).reason

    for run_as in ("ALL", "root", "%root"):
        assert "alice: ALL" in root(given("alice", "ALL", runasusers=user(run_as))), run_as
    for entry in ({"userid": 0}, {"usergid": 0}, {"netgroup": "x"}, {"usergroup": "unlisted"}):
        assert "alice: ALL" in root(given("alice", "ALL", runasusers=[entry])), entry
    assert "alice: ALL" in root(given("alice", "ALL"))
    for rule in (
        given("alice", "ALL", runasgroups=[{"usergroup": "deploy"}]),
        given("alice", "ALL", runasusers=[{"username": ""}]),
        given("alice", "ALL", runasusers=user("ALL", "!root")),
        given("alice", "ALL", runasusers=user("%deploy")),
        given("alice", "ALL", Options=[{"notafter": "20200101000000Z"}]),
    ):
        assert "alice" not in root(rule), rule
    nobody = ({"Options": [{"runas_default": "nagios"}]},)
    assert "alice" not in root(given("alice", "ALL"), defaults=nobody)
    no_question = given("alice", "ALL", Options=[{"authenticate": False}])
    assert "alice: ALL as nagios" in unasked(no_question, defaults=nobody)


@pytest.mark.parametrize("command", ["/opt/tools/", "/opt/tools/*", "/opt/tools/[[:alpha:]]"])
def test_what_stands_in_a_directory_is_looked_at(command: str) -> None:
    place = "755 0 0 directory\0/opt\000755 0 0 directory\0/opt/tools\000{} regular file\0/opt/tools/x\0"
    own = rights(spec(user("alice"), command), stat=TOP + place.format("755 1000 100"))
    assert "/opt/tools/x: alice (by /opt/tools/x)" in verdict("AUTH-030", own).reason
    safe = rights(spec(user("alice"), command), stat=TOP + place.format("755 0 0"))
    assert verdict("AUTH-030", safe).outcome is Outcome.PASSED


def test_a_blank_may_be_part_of_the_name_and_an_expression_is_not_followed() -> None:
    place = stat(
        ("/opt", "755", 0, 0, "directory"), ("/opt/my prog", "755", 1000, 100, "regular file")
    )
    own = rights(spec(user("alice"), "/opt/my prog -x"), stat=TOP + place)
    assert "alice (by /opt/my prog)" in verdict("AUTH-030", own).reason
    told = verdict("AUTH-030", rights(spec(user("alice"), "^/opt/(a|b)$")))
    assert told.outcome is Outcome.FAILED and "regular expression" in told.reason


def test_the_probe_finds_programs_by_wildcard_and_with_blanks(tmp_path: Path) -> None:
    (tmp_path / "tools").mkdir()
    for name in ("tools/one", "tools/.two", "my prog"):
        (tmp_path / name).touch(mode=0o777)
        (tmp_path / name).chmod(0o777)
    rules = {
        "Defaults": [bound(user("root"), ">", authenticate=False)],
        "User_Specs": [spec(user("root"), f"{tmp_path}/tools/", f"{tmp_path}/my prog -x")],
    }
    (tmp_path / "json").write_text(json.dumps(rules, indent=4))
    (tmp_path / "sudoers").write_text("Defaults>root !authenticate\n")
    convert = tmp_path / "cvtsudoers"
    convert.write_text(f'#!/bin/sh\ncat "{tmp_path}/$3"\n')
    convert.chmod(0o755)
    probe = moved(sudo_rights(), "[ -e /etc/sudoers ] || exit 3", f"PATH={tmp_path}:$PATH")
    told = Probe(name="sudo", script=probe.script, parse=lambda output: output)
    records = dict(ask(told).records)
    entries, _ = parse_entries(records)
    wanted = {f"{tmp_path}/{name}" for name in ("tools/one", "tools/.two", "my prog", "tools")}
    assert wanted <= set(entries) and "complete" in records
    assert records["marks"].split() == [">"] and re.fullmatch(r"\d{14}Z\s*", records["now"])
