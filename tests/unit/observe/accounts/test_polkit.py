"""polkit: what each account may do unasked, by what rules answer. The scripts were held against
Duktape, the engine of polkit, on 126 questions each.
"""

from __future__ import annotations

import time
from functools import cache

import pytest

from pytest_nixos.backend_name import BackendName
from pytest_nixos.findings import Outcome
from pytest_nixos.observe.accounts.polkit import Answers, polkit_answers
from pytest_nixos.standards.judging.judge import Verdict, judge
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


R = "/etc/polkit-1/rules.d/"
DUKTAPE, MOZJS = "libduktape\n", "libmozjs\n"


def several(
    *files: tuple[str, str],
    polkitd: str = DUKTAPE,
    passwd: str = PASSWD,
    group: str = GROUP,
    actions: str = ACTIONS,
) -> Answers:
    """Answer for files of rules, each a path and a text; wheel are the administrators last."""
    text = f"=passwd\n{passwd}=group\n{group}"
    last = ("/run/current-system/sw/share/polkit-1/rules.d/99-last.rules", ADMINS)
    for path, body in (*files, last):
        text += f"=rules\n{path}\0{len(body)}\0{body}\n"
    text += f"=actions\n{actions}=polkitd\n{polkitd}=complete\n"
    found = parsed(polkit_answers(), text)
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
        "try { return polkit.Result.YES; } finally { polkit.log('x'); }",
        "while (true) {} return polkit.Result.YES;",
        'var s = "x"; while (s.length > 0) { s += s; } return "yes";',
        'if (/(a+)+$/.test(action.id)) return "yes";',
        "return unknown(subject) ? polkit.Result.YES : null;",
        'if (subject.pid == 7) return "yes";',
        "var f = function() { return f(); }; f(); return polkit.Result.YES;",
        "if (subject.user ==) return polkit.Result.YES;",
        "return " + "'y' + " * 9000 + "'es';",
        "return " + "(" * 6000 + "'yes'" + ")" * 6000 + ";",
        "if (true) " * 5000 + "return 'yes';",
    ],
)
def test_a_rule_that_cannot_be_followed_is_no_pass(body: str) -> None:
    begun = time.process_time()
    found = answers(rule(body))
    assert time.process_time() - begun < 60
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


EXEC = 'action.id == "org.freedesktop.policykit.exec"'
UNITS = 'action.id == "org.freedesktop.systemd1.manage-units"'
SHELL = 'action.id == "org.freedesktop.machine1.host-shell"'


@pytest.mark.parametrize(
    "condition",
    [
        f'{EXEC} && action.lookup("user") == "root"',
        f'{EXEC} && action.lookup("program") == "/run/current-system/sw/bin/bash"',
        f'{EXEC} && action.lookup("program").indexOf("/nix/store/") == 0',
        f'{EXEC} && action.lookup("command_line").match("sh -c")',
        f'{SHELL} && action.lookup("user") == "root"',
        f'{SHELL} && action.lookup("machine") == ".host"',
        f'{UNITS} && action.lookup("unit").indexOf("backup-") == 0',
        f'{UNITS} && action.lookup("unit").endsWith(".service")',
        f'{UNITS} && /^run-/.test(action.lookup("unit"))',
        f'{UNITS} && action.lookup("unit").substr(0, 4) === "web@"',
        f'{UNITS} && action.lookup("unit").indexOf("web.service") >= 0 && action.lookup("verb") == "start"',
        f'{UNITS} && ("" + action.lookup("unit")).split(".")[1] == "service"',
        f'{UNITS} && action.lookup("unit") !== "sshd.service"',
    ],
)
def test_who_asks_chooses_what_is_asked_for(condition: str) -> None:
    found = several(
        (R + "10.rules", rule(f'if ({condition} && subject.user == "alice") return "yes";'))
    )
    assert [told.partition(":")[0] for told in found.as_root] == ["alice"]
    # Whoever is not named gets nothing, whichever unit it is.
    assert verdict("AUTH-034", found).outcome is Outcome.PASSED


def test_an_action_without_a_detail_answers_undefined() -> None:
    guard = rule(
        'var unit = action.lookup("unit"); if (unit && unit != "web.service") return "no";'
    )
    found = several((R + "10.rules", guard + rule('if (subject.user == "alice") return "yes";')))
    assert found.as_root == ("alice: any action",)


@pytest.mark.parametrize(
    "condition",
    [
        f'{UNITS} && action.lookup("unit") == "web.service"',
        f'{UNITS} && ["a.service", "b.service"].indexOf(action.lookup("unit")) >= 0',
        f'{UNITS} && /^(web|db)\\.service$/.test(action.lookup("unit"))',
        f'{UNITS} && {{"web.service": true}}[action.lookup("unit")]',
        f'{EXEC} && action.lookup("program") == "/run/current-system/sw/bin/reboot"',
        f'{EXEC} && action.lookup("user") == "postgres"',
        f'{SHELL} && action.lookup("user") == "alice"',
    ],
)
def test_a_yes_for_what_a_rule_names_is_not_root(condition: str) -> None:
    log = 'polkit.log("asked for " + action.lookup("unit") + " by " + subject.user);'
    named = rule(f'if ({condition} && subject.user == "alice") {{ {log} return "yes"; }}')
    found = several((R + "10.rules", named))
    assert (found.as_root, found.unclear["as-root"]) == ((), ())
    # Said of everybody it is one more thing that every account may do.
    everybody = several((R + "10.rules", rule(f'if ({condition}) return "yes";')))
    assert everybody.as_root == ()
    assert verdict("AUTH-034", everybody).outcome is Outcome.FAILED


@pytest.mark.parametrize(
    "condition",
    [
        'action.lookup("unit").length == 77',
        '/^[a-c]x[.]service$/.test(action.lookup("unit"))',
        'action.lookup("unit").charAt(0) == action.lookup("unit").charAt(3)',
        'looks(action.lookup("unit"))',
        '["b", "c"].some(function(c) { return action.lookup("unit").charAt(70) == c; })',
        'kept(action.lookup("unit")) && last == 77',
    ],
)
def test_a_name_that_no_try_decides_is_no_pass(condition: str) -> None:
    helpers = (
        "function looks(u) { var n = u.length; if (n == 77) { return true; } return false; }\n"
        "var last = 0; function kept(u) { last = u.length; return true; }\n"
    )
    body = helpers + rule(f'if ({UNITS} && {condition} && subject.user == "alice") return "yes";')
    seen = verdict("AUTH-033", several((R + "10.rules", body)))
    assert seen.outcome is Outcome.FAILED
    assert "which unit of org.freedesktop.systemd1.manage-units rules mean" in seen.reason


GUARDS = [
    "if (polkit.none) { return; }\n" + rule('if (!subject.isInGroup("wheel")) return "no";'),
    "export var a = 1;\n" + rule('if (!subject.isInGroup("wheel")) return "no";'),
    rule('if (!subject.isInGroup("wheel")) return "no"; return /x/u.test("") && "";'),
    rule('if (!subject.isInGroup("wheel")) return "no"; return /(?<!x)y/.test("") && "";'),
    rule('if (!subject.isInGroup("wheel")) return "no"; try { return ""; } catch { return ""; }'),
    'polkit.addRule((action, subject) => { if (!subject.isInGroup("wheel")) return "no"; });',
    rule('let w = subject.isInGroup("wheel"); if (!w) return "no";'),
    rule('if (!subject.isInGroup(`wheel`)) return "no";'),
    rule('for (var g of ["wheel"]) { if (!subject.isInGroup(g)) return "no"; }'),
    "function f(n = 1) { return n; }" + rule('if (!subject.isInGroup("wheel")) return "no";'),
]


@pytest.mark.parametrize("guard", GUARDS)
def test_duktape_skips_a_file_that_it_does_not_read(guard: str) -> None:
    """Duktape 2.7, which nixpkgs' polkit uses, says SyntaxError to each: measured."""
    nm = rule('if (subject.isInGroup("networkmanager")) return "yes";')
    files = ((R + "05-guard.rules", guard), (R + "10.rules", nm))
    wrong = verdict("AUTH-033", several(*files))
    assert wrong.outcome is Outcome.FAILED and "nm: any action" in wrong.reason
    assert "does not read 05-guard.rules (it has " in wrong.reason
    if guard not in GUARDS[:2]:
        # Which no engine reads.
        assert several(*files, polkitd=MOZJS).as_root == ()
    # Which engine it is is not known: either way has to be right.
    assert several(*files, polkitd="").as_root == ("nm: any action",)


def test_a_rule_that_is_no_javascript_is_told_with_its_line() -> None:
    broken = (
        'polkit.addRule(function(action, subject) {\n  if (subject.isInGroup("wheel") {\n  }\n});'
    )
    wrong = verdict("AUTH-034", several((R + "10-nixos.rules", broken)))
    assert wrong.outcome is Outcome.FAILED
    assert "10-nixos.rules: it is no JavaScript that can be read (line 2: if (" in wrong.reason


def test_what_duktape_skips_or_throws_at_gives_nobody_anything() -> None:
    arrow = "polkit.addRule((action, subject) => polkit.Result.YES);"
    includes = rule('if (["alice"].includes(subject.user)) return "yes";')
    for body in (arrow, includes):
        assert verdict("AUTH-033", several((R + "10.rules", body))).outcome is Outcome.PASSED
        assert several((R + "10.rules", body), polkitd=MOZJS).as_root
    half = "var o = {f() { return 1; }};\n" + rule('if (subject.user == "alice") return "no";')
    assert verdict("AUTH-033", several((R + "10.rules", half))).outcome is Outcome.FAILED


def test_all_files_share_what_they_declare() -> None:
    first = "function ok(s) { return s.isInGroup('nobody'); }\n" + rule(
        "if (ok(subject)) return 'yes';"
    )
    second = "function ok(s) { return s.user == 'alice'; }\n"
    found = several((R + "05.rules", first), (R + "10.rules", second))
    assert found.as_root == ("alice: any action",)


@pytest.mark.parametrize(
    ("identity", "told"),
    [
        ("unix-group:100", "alice: unix-group:100"),
        ("unix-user:1000", "alice: unix-user:1000"),
        ("unix-user:root,unix-user:alice", "alice: unix-user:alice"),
        ("unix-netgroup:ops", "unix-netgroup:ops, which"),
        ("unix-group:domain_admins", "unix-group:domain_admins, which"),
    ],
)
def test_administrators_by_any_identity(identity: str, told: str) -> None:
    for condition in ("true", EXEC, "!subject.local", "subject.local && !subject.active"):
        body = f"polkit.addAdminRule(function(action, subject) {{ if ({condition}) return ['{identity}']; }});"
        wrong = verdict("AUTH-035", several((R + "10.rules", body)))
        assert wrong.outcome is Outcome.FAILED and told in wrong.reason, condition


@pytest.mark.parametrize("folder", ["/run/polkit-1/rules.d", "/usr/local/share/polkit-1/rules.d"])
def test_folders_that_newer_ones_read(folder: str) -> None:
    alice, guard = rule('if (subject.user == "alice") return "yes";'), rule('return "no";')
    assert several((f"{folder}/.x.rules", alice), polkitd=f"{folder}\n{DUKTAPE}").as_root
    assert not several((f"{folder}/x.rules", alice), polkitd=DUKTAPE).as_root
    # An older one does not read the guard.
    files = ((f"{folder}/05.rules", guard), (R + "10.rules", alice))
    assert several(*files, polkitd=DUKTAPE).as_root and several(*files, polkitd="").as_root
    assert not several(*files, polkitd=f"{folder}\n{DUKTAPE}").as_root
    assert f"{folder}" in polkit_answers().script


@pytest.mark.parametrize(
    "condition",
    [
        'action.id.indexOf("login1") >= 0',
        'action.id.match("login1")',
        'action.id.split(".")[2] == "login1"',
        'action.id.includes("NetworkManager")',
        'action.id.substr(-2) == "ot"',
        'action.id == ["org.freedesktop.login1", "reboot"].join(".")',
    ],
)
def test_a_part_of_an_action_s_name_is_tried(condition: str) -> None:
    found = several((R + "10.rules", rule(f'if ({condition}) return "yes";')))
    assert verdict("AUTH-034", found).outcome is Outcome.FAILED and found.to_anybody


def test_actions_that_could_not_all_be_asked_for_are_no_pass() -> None:
    body = (R + "10.rules", rule('if (/udisks2x/.test(action.id)) return "yes";'))
    # A rule that names what it means needs no list of actions.
    fine = rule('if (action.id == "org.freedesktop.login1.reboot" && subject.local) return "yes";')
    assert (
        verdict("AUTH-034", several((R + "10.rules", fine), actions="")).outcome is Outcome.PASSED
    )
    many = "".join(f'<action id="org.a{n}.x"\n' for n in range(1500))
    for actions in (many, ""):
        seen = verdict("AUTH-034", several(body, actions=actions))
        assert seen.outcome is Outcome.FAILED and "not all actions" in seen.reason


@pytest.mark.parametrize(
    "condition",
    [
        'typeof action.id == "string"',
        'action.id.replace("a", "b") != ""',
        'subject.isInNetGroup("x")',
        'subject.system_unit == "a.service"',
    ],
)
def test_what_cannot_be_followed_elsewhere_spoils_nothing(condition: str) -> None:
    body = rule(
        f'if (action.id == "org.freedesktop.login1.reboot" && subject.isInGroup("wheel") && {condition}) return "yes";'
    )
    found = several((R + "10.rules", body))
    for control in ("AUTH-033", "AUTH-034", "AUTH-035"):
        assert verdict(control, found).outcome is Outcome.PASSED, control
    odd = several((R + "10.rules", rule("return polkit.spawn(['x']) + 'yes';")))
    assert verdict("AUTH-035", odd).outcome is Outcome.PASSED
    assert verdict("AUTH-033", odd).outcome is Outcome.FAILED


def test_an_answer_that_a_rule_puts_together_may_be_yes() -> None:
    body = rule('polkit.spawn(["x"]); var said = "ye"; return said + "s";')
    assert verdict("AUTH-033", several((R + "10.rules", body))).outcome is Outcome.FAILED


def test_a_rule_with_many_texts_ends_soon() -> None:
    texts = ", ".join(f'"a{n}"' for n in range(6000))
    body = f'var t = [{texts}]; if (action.lookup("unit").length == 99) return "yes";'
    begun = time.process_time()
    found = several((R + "10.rules", rule(body)))
    assert time.process_time() - begun < 60
    assert verdict("AUTH-033", found).outcome is Outcome.FAILED


def test_many_persons_are_judged_within_the_steps_that_there_are() -> None:
    people = "".join(f"p{n}:x:{2000 + n}:100::/h:/bin/bash\n" for n in range(500))
    loop = rule('for (var i = 0; i < 300; i++) {} if (subject.user == "p400") return "yes";')
    begun = time.process_time()
    found = several((R + "10.rules", loop), passwd=PASSWD + people)
    assert time.process_time() - begun < 60
    assert found.as_root == ("p400: any action",) and found.unclear["as-root"] == ()


@pytest.mark.parametrize("uid", [60001, 1200001])
def test_persons_of_homed_and_of_domains(uid: int) -> None:
    passwd = f"{PASSWD}dom:x:{uid}:{uid}::/home/dom:/bin/bash\n"
    body = 'if (subject.user != "alice" && subject.user.indexOf("o") == 1) return "yes";'
    assert "dom: any action" in several((R + "10.rules", rule(body)), passwd=passwd).as_root


def test_whom_nobody_lists_is_told_by_what_a_rule_gives() -> None:
    body = rule('if (subject.isInGroup("domain_admins") || subject.user == "eve@ad") return "yes";')
    wrong = verdict("AUTH-033", several((R + "10.rules", body)))
    assert "group domain_admins, which the machine does not list: any action" in wrong.reason
    assert "user eve@ad, which the machine does not list: any action" in wrong.reason


@pytest.mark.parametrize(
    "body",
    [
        'return "\\x79e\\u0073";',
        'if (action.lookup("other") === null) return "no"; return "yes";',
        'if (action.lookup("other") !== undefined) return "no"; return "yes";',
        'if (action.id.match(/^no$/) !== null) return "no"; return "yes";',
        'if (["a", "b"].some(function(v, n, all) { return n == 1 && all.length == 2; })) return "yes";',
        'if (shared) return "no"; var shared = 1; return "yes";',
        'var n = 1; var n; if (n == 1) return "yes";',
    ],
)
def test_javascript_means_what_it_means(body: str) -> None:
    found = several((R + "10.rules", "var shared = 1;\n" + rule(body)))
    assert found.as_root == ("everybody: any action",)
