"""polkit: what each account may do unasked, by what rules answer. The scripts were held against
Duktape, the engine of polkit, on 126 questions each.
"""

from __future__ import annotations

import time
from functools import cache

import pytest

from pytest_nixos.backend_name import BackendName
from pytest_nixos.findings import Outcome
from pytest_nixos.observe.polkit import Answers, polkit_answers
from pytest_nixos.standards.judge import Verdict, judge
from pytest_nixos.standards.load import load_catalogue
from tests.unit.observe.here import parsed
from tests.unit.standards.samples import host_config

_catalogue = cache(load_catalogue)
PASSWD = """\
root:x:0:0::/root:/bin/bash
alice:x:1000:100::/home/alice:/bin/bash
bob:x:1001:100::/home/bob:/bin/bash
nm:x:1002:100::/home/nm:/bin/bash
"""
GROUP = "wheel:x:1:bob\nusers:x:100:\nnetworkmanager:x:57:nm\n"
ADMINS = 'polkit.addAdminRule(function(action, subject) { return ["unix-group:wheel"]; });\n'
ACTIONS = "".join(
    f'<action id="org.freedesktop.{name}"\n'
    for name in ("login1.reboot", "login1.power-off", "NetworkManager.network-control")
)


def answers(rules: str, name: str = "/etc/polkit-1/rules.d/10-nixos.rules") -> Answers:
    other = "/run/current-system/sw/share/polkit-1/rules.d/90-other.rules"
    text = f"=passwd\n{PASSWD}=group\n{GROUP}"
    for path, body in ((other, ADMINS), (name, rules)):
        text += f"=rules\n{path}\0{len(body)}\0{body}\n"
    found = parsed(polkit_answers(), f"{text}=actions\n{ACTIONS}=complete\n")
    assert isinstance(found, Answers)
    return found


def rule(body: str) -> str:
    """Write a rule as hosts do."""
    return f"polkit.addRule(function(action, subject) {{ {body} }});\n"


def verdict(control: str, found: Answers | str | None, *, enable: bool = True) -> Verdict:
    host = host_config(options={"security.polkit.enable": enable})
    return judge(_catalogue().control(control), host, {"polkit": found}, BackendName.VM)


#: Of nixpkgs' modules, packages and its wiki: none gives root, and each names whom it means.
FINE = [
    "",
    """if (subject.isInGroup("networkmanager") && (action.id.indexOf("org.freedesktop.NetworkManager.") == 0
      || action.id.indexOf("org.freedesktop.ModemManager") == 0)) { return polkit.Result.YES; }""",
    'if (action.id == "org.libvirt.unix.manage" && subject.isInGroup("libvirtd")) { return polkit.Result.YES; }',
    'if (action.id == "org.freedesktop.login1.reboot" && subject.user == "alice") return "yes";',
    """if (action.id == "org.freedesktop.systemd1.manage-units" && action.lookup("unit") == "web.service"
      && subject.user == "alice") { return polkit.Result.YES; }""",
    "if (subject.local) return polkit.Result.AUTH_SELF;",
    'if (action.id == "org.freedesktop.login1.reboot" && subject.local && subject.active) return "yes";',
    # systemd's and gnome-initial-setup's own.
    """if ((action.id == "org.freedesktop.hostname1.set-hostname" || action.id == "org.freedesktop.hostname1.get-product-uuid")
      && subject.user == "systemd-network") { return polkit.Result.YES; }""",
    """if (subject.user !== 'gnome-initial-setup') return undefined;
      var actionMatches = (action.id.indexOf('org.freedesktop.hostname1.') === 0);
      if (actionMatches) { if (subject.local) return 'yes'; else return 'auth_admin'; } return undefined;""",
    "polkit.log(action.id); return polkit.Result.NOT_HANDLED;",
]


@pytest.mark.parametrize("body", FINE)
def test_rules_that_name_whom_and_what_they_mean_are_fine(body: str) -> None:
    found = answers(rule(body))
    for control in ("AUTH-033", "AUTH-034", "AUTH-035"):
        assert verdict(control, found).outcome is Outcome.PASSED, control


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("return polkit.Result.YES;", "everybody: any action"),
        ('if (subject.local) return "yes";', "everybody: any action at the machine"),
        ("if (subject.active) return 'yes';", "everybody: any action over a network"),
        ('if (subject.isInGroup("wheel")) return polkit.Result.YES;', "bob: any action"),
        ('if (subject.user !== "alice") return polkit.Result.YES;', "everybody: any action"),
        (
            'if (action.id == "org.freedesktop.policykit.exec" && subject.user == "nm") return "yes";',
            "nm: org.freedesktop.policykit.exec",
        ),
        (
            'if (action.id.match("manage-units") && action.lookup("unit") != "sshd.service") return "yes";',
            "everybody: org.freedesktop.systemd1.manage-units",
        ),
        (
            'if (/systemd1[.]/.test(action.id) && action.lookup("verb") === "restart") return "yes";',
            "everybody: org.freedesktop.systemd1.manage-units, ",
        ),
        (
            """var ids = ["org.a.b", "org.freedesktop.accounts.user-administration"];
            for (var i = 0; i < ids.length; i++) { if (action.id === ids[i]) return polkit.Result["YES"]; }""",
            "everybody: org.freedesktop.accounts.user-administration",
        ),
        (
            'switch (action.id) { case "org.a.b": return null; default: return "yes"; }',
            "any action",
        ),
    ],
)
def test_root_unasked_is_seen(body: str, told: str) -> None:
    wrong = verdict("AUTH-033", answers(rule(body)))
    assert wrong.outcome is Outcome.FAILED and told in wrong.reason


def test_a_function_of_the_file_answers_for_its_rule() -> None:
    found = answers(
        "const people = ['alice'];\nfunction ours(s) { return people.indexOf(s.user) >= 0; }\n"
        "polkit.addRule((a, s) => ours(s) ? polkit.Result.YES : null);\n"
    )
    assert found.as_root == ("alice: any action",) and not found.to_anybody


def test_everybody_may_do_what_a_rule_says_of_nobody() -> None:
    found = answers(rule('if (action.id.startsWith("org.freedesktop.login1.")) return "yes";'))
    assert verdict("AUTH-033", found).outcome is Outcome.PASSED
    wrong = verdict("AUTH-034", found)
    assert wrong.outcome is Outcome.FAILED
    assert "org.freedesktop.login1.reboot, org.freedesktop.login1.power-off" in wrong.reason


def test_the_first_rule_that_answers_decides() -> None:
    no, yes = rule("return polkit.Result.NO;"), rule("return polkit.Result.YES;")
    assert answers(no + yes).as_root == ()
    assert answers(yes + no).as_root == ("everybody: any action",)
    # By the name of the file, whichever folder it is in.
    late = answers(yes, "/etc/polkit-1/rules.d/99-late.rules")
    assert late.as_root == ("everybody: any action",)


@pytest.mark.parametrize(
    "said", ["subject.isInGroup('wheel') && polkit.Result.AUTH_ADMIN", "''", "null", "0", "false"]
)
def test_what_is_false_is_no_answer(said: str) -> None:
    asks = rule(f"return {said};") + rule('if (subject.user == "alice") return "yes";')
    assert answers(asks).as_root == ("alice: any action",)
    admin = f"polkit.addAdminRule(function(action, subject) {{ return {said}; }});"
    admin = admin.replace("polkit.Result.AUTH_ADMIN", "false")
    users = "polkit.addAdminRule(function() { return ['unix-group:users']; });"
    assert "alice: unix-group:users" in answers(admin + users).administrators


@pytest.mark.parametrize(("passwd", "group"), [("", ""), (PASSWD, ""), ("", GROUP)])
def test_accounts_that_cannot_be_read_are_no_pass(passwd: str, group: str) -> None:
    text = f"=passwd\n{passwd}=group\n{group}=actions\n{ACTIONS}=complete\n"
    assert parsed(polkit_answers(), text) is None


def test_administrators_outside_of_wheel() -> None:
    found = answers("polkit.addAdminRule(() => ['unix-user:alice', 'unix-group:wheel']);")
    wrong = verdict("AUTH-035", found)
    assert wrong.outcome is Outcome.FAILED and "alice: unix-user:alice" in wrong.reason
    # What comes later is not asked: the first file by name has answered.
    late = answers(
        "polkit.addAdminRule(() => ['unix-user:alice']);", "/etc/polkit-1/rules.d/95-late.rules"
    )
    assert verdict("AUTH-035", late).outcome is Outcome.PASSED


@pytest.mark.parametrize(
    "body",
    [
        'polkit.spawn(["/bin/true"]); return polkit.Result.YES;',
        "try { return polkit.Result.YES; } catch (e) { return null; }",
        "while (true) {} return polkit.Result.YES;",
        'var s = "x"; while (s.length > 0) { s += s; } return "yes";',
        'if (/(a+)+$/.test(action.id)) return "yes";',
        "return unknown(subject) ? polkit.Result.YES : null;",
        'if (subject.pid == 7) return "yes";',
        'if (subject.isInNetGroup("x")) return "yes";',
        "var f = function() { return f(); }; f(); return polkit.Result.YES;",
        "if (subject.user ==) return polkit.Result.YES;",
    ],
)
def test_a_rule_that_cannot_be_followed_is_no_pass(body: str) -> None:
    begun = time.monotonic()
    found = answers(rule(body))
    assert time.monotonic() - begun < 5
    for control in ("AUTH-033", "AUTH-034"):
        seen = verdict(control, found)
        assert seen.outcome is Outcome.FAILED and "10-nixos.rules: " in seen.reason, control


def test_a_rule_that_says_no_yes_need_not_be_followed() -> None:
    found = answers(rule('try { polkit.spawn(["x"]); } catch (e) { return polkit.Result.NO; }'))
    assert verdict("AUTH-033", found).outcome is Outcome.PASSED


def test_what_cannot_be_told_is_no_pass() -> None:
    assert parsed(polkit_answers(), f"=passwd\n{PASSWD}") is None
    long = "=rules\n/etc/polkit-1/rules.d/a.rules\x0070000\0x\n=complete\n"
    assert parsed(polkit_answers(), long) is None
    assert verdict("AUTH-033", None).outcome is Outcome.FAILED
    lacking = parsed(polkit_answers(), "", 3)
    assert verdict("AUTH-033", lacking).outcome is Outcome.NOT_APPLICABLE
    off = verdict("AUTH-034", None, enable=False)
    assert off.outcome is Outcome.NOT_APPLICABLE and "does not use polkit" in off.reason
