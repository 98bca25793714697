"""The remedy of a finding: the release's own text, filled from what was observed, and nothing
that cannot apply.
"""

from __future__ import annotations

import datetime as dt
import re
from typing import Any

import pytest
from msgspec.structs import replace

from pytest_nixos.findings import Severity
from pytest_nixos.standards.control.config_facts import CONFIG_FACTS
from pytest_nixos.standards.control.model import (
    Control,
    DeclaredSpec,
    Expectation,
    Fill,
    Operator,
    Quantifier,
    Remedy,
    Requirement,
)
from pytest_nixos.standards.control.nixos_releases import load_releases
from pytest_nixos.standards.control.seen import Seen
from pytest_nixos.standards.judging.applicability import outside_releases
from pytest_nixos.standards.judging.remedy import ALWAYS_FILLED, remedy_text, sysctl_module
from pytest_nixos.standards.judging.statements import statements
from pytest_nixos.standards.load import load_catalogue
from tests.unit.standards.samples import host_config

Json = Any
TODAY = dt.date(2026, 11, 28)
CATALOGUE = load_catalogue()
EACH_YES = Expectation(op=Operator.EQ, value="yes", quantifier=Quantifier.EACH)


def control(*remedies: Remedy, fill: dict[str, Fill] | None = None, check: bool = False) -> Control:
    return Control(
        id="OUR-001",
        suite="ours",
        title="A rule",
        severity=Severity.LOW,
        threat="It happens.",
        remedies=remedies,
        fill=fill or {},
        check=check,
        expect=None if check else EACH_YES,
    )


def given(
    subject: Control,
    *,
    release: str = "24.05",
    observed: Json = None,
    reason: str = "",
    **changes: Json,
) -> str:
    host = replace(host_config(), release=release, **changes)
    return remedy_text(subject, host, observed=observed, reason=reason, today=TODAY)


UNIT = Remedy(text='systemd.services."<unit>".serviceConfig = {\n  PrivateTmp = true;\n};')


def test_each_unit_that_violates_is_named_and_no_other() -> None:
    seen = {"good.service": "yes", "bad.service": "no", "web@1.service": "no"}
    text = given(control(UNIT), observed=seen)
    assert 'systemd.services."bad".serviceConfig = {\n  PrivateTmp = true;\n};' in text
    assert 'systemd.services."web@1".' in text
    assert "good" not in text


def test_a_declared_value_that_violates_is_named_where_the_machine_is_right() -> None:
    seen = {"machine": {"a.service": "yes"}, "declared": {"b.service": "no"}}
    assert '"b"' in given(control(UNIT), observed=seen)


def test_what_nobody_knows_is_a_comment_that_evaluates() -> None:
    text = given(control(UNIT), observed={})
    assert text.splitlines()[0] == "# With the right <unit>:"
    assert all(line.startswith("#") for line in text.splitlines())


def test_a_check_says_in_its_sentence_what_is_wrong() -> None:
    subject = control(UNIT, check=True)
    text = given(
        subject, observed={"a.service": 9.1, "b.service": 1.0}, reason="exposed: a.service"
    )
    assert '"a"' in text
    assert '"b"' not in text


def test_every_value_goes_into_one_list() -> None:
    fill = {"module": Fill(pattern=r"([\w.-]+): declared", table="sysctl-modules")}
    subject = control(
        Remedy(text='boot.kernelModules = [ "<every module>" ];'), fill=fill, check=True
    )
    reason = "net.bridge.bridge-nf-call-iptables: declared 1, is missing; net.netfilter.nf_conntrack_max: declared 9, is missing"
    assert (
        given(subject, reason=reason) == 'boot.kernelModules = [ "br_netfilter" "nf_conntrack" ];'
    )


@pytest.mark.parametrize("evil", ['x"; evil = "', "x${builtins.abort 1}", "x\ny", "x\\", "''"])
def test_what_a_guest_says_cannot_become_code(evil: str) -> None:
    fill = {"name": Fill(pattern=r"(?s)(.+)")}
    text = given(control(Remedy(text='a."<name>" = 1;'), fill=fill), observed={evil: None})
    assert all(line.startswith("#") for line in text.splitlines())


def test_many_values_are_cut_short() -> None:
    seen = {f"u{number}.service": "no" for number in range(20)}
    text = given(control(Remedy(text='s."<unit>" = 1;')), observed=seen)
    assert text.count('s."u') == 8
    assert "# and the same for 12 more" in text


OLD, NEW = Remedy(text="old = 1;", until="25.05"), Remedy(text="new = 1;", since="25.11")


@pytest.mark.parametrize(
    ("release", "text"),
    [
        ("24.05", "old"),
        ("25.05", "old"),
        ("25.11", "new"),
        ("26.11pre-git", "new"),
        ("unknown", "new"),
    ],
)
def test_the_release_chooses(release: str, text: str) -> None:
    assert given(control(NEW, OLD), release=release) == f"{text} = 1;"


def test_a_release_without_the_option_gets_none() -> None:
    assert "NixOS 24.05 has no option" in given(control(NEW), release="24.05")


def test_conditions_choose() -> None:
    off = Requirement(
        declared=DeclaredSpec(options=("a.enable",)),
        expect=Expectation(op=Operator.NE, value=True),
        reason="",
    )
    subject = control(Remedy(text="a.enable = true;", when=(off,)), Remedy(text="b = 1;"))
    for value, text in ((False, "a.enable = true;"), (True, "b = 1;")):
        host = host_config(options={"a.enable": value})
        assert remedy_text(subject, replace(host, release="24.05"), today=TODAY) == text


def test_what_is_so_already_is_not_given() -> None:
    so = 'a.b = true;\nboot.kernel.sysctl."k.y" = 0;'
    options = {"a.b": True, "a.c": "y"}
    host = replace(host_config(options=options), release="24.05", sysctls={"k.y": "0"})
    more = remedy_text(control(Remedy(text=f'{so}\na.c = "x";\nd = 1;')), host, today=TODAY)
    assert more == 'a.c = "x";\nd = 1;'
    lines = remedy_text(control(Remedy(text=so)), host, today=TODAY).splitlines()
    assert all(line.startswith("#") for line in lines)
    assert "a.b is so already" in lines[0]


def test_other_places_are_named() -> None:
    subject = control(
        Remedy(text='inputs.nixpkgs.url = "nixos-<supported release>";', goes_into="flake.nix")
    )
    first, second = given(subject).splitlines()
    assert first == "# Goes into flake.nix, not into a module:"
    assert second == f'inputs.nixpkgs.url = "nixos-{load_releases().newest_supported(TODAY)}";'
    subject = control(
        Remedy(text="sops.secrets.a = { };", goes_into="a module of a host with sops")
    )
    assert given(subject).splitlines()[0] == "# Goes into a module of a host with sops:"


@pytest.mark.parametrize(
    ("today", "release"),
    [
        ("2024-05-20", "23.11"),
        ("2024-06-01", "24.05"),
        ("2026-11-20", "26.05"),
        ("2026-12-01", "26.11"),
    ],
)
def test_the_newest_release_that_is_out(today: str, release: str) -> None:
    assert load_releases().newest_supported(dt.date.fromisoformat(today)) == release


@pytest.mark.parametrize(
    ("key", "value", "module"),
    [
        ("net.bridge.bridge-nf-call-iptables", "1", "br_netfilter"),
        ("net.netfilter.nf_conntrack_tcp_loose", "0", "nf_conntrack"),
        ("net.nf_conntrack_max", "1", "nf_conntrack"),
        ("net.ipv4.vs.conntrack", "1", "ip_vs"),
        ("net.sctp.auth_enable", "1", "sctp"),
        ("fs.nfs.nlm_tcpport", "1", "lockd"),
        ("fs.nfs.nfs_mountpoint_timeout", "1", "nfs"),
        ("sunrpc.tcp_max_slot_table_entries", "1", "sunrpc"),
        ("dev.raid.speed_limit_max", "1", "md_mod"),
        ("net.ipv4.tcp_congestion_control", "bbr", "tcp_bbr"),
        ("net.core.default_qdisc", "cake", "sch_cake"),
        ("net.core.default_qdisc", "", None),
        ("net.bridges.x", "1", None),
        ("kernel.sysrq", "0", None),
    ],
)
def test_the_module_that_owns_a_sysctl(key: str, value: str, module: str | None) -> None:
    assert sysctl_module(key, value) == module


def test_statements_end_where_nix_says() -> None:
    text = 'a = 1;  # b; {\nb = [\n  "x;{" # "\n  \'\'y;\n\'\'\n];\n# c = {\nd = { e = "\\"}"; };\n'
    assert [s.text.partition(" ")[0] for s in statements(text)] == ["a", "b", "#", "d"]
    assert "\n".join(s.text for s in statements(text)) == text.rstrip("\n")


def test_no_bundled_remedy_is_torn_apart() -> None:
    for subject in CATALOGUE:
        for remedy in subject.remedies:
            parts = statements(remedy.text)
            assert "\n".join(part.text for part in parts) == remedy.text
            assert all(p.is_comment or p.text.rstrip().split("#")[0] for p in parts), subject.id


#: What no observation tells: whose files they are, and who is a visitor.
UNKNOWN = {("FS-012", "account"), ("AUTH-023", "account")}


def test_every_placeholder_has_a_source() -> None:
    without = {
        (subject.id, word)
        for subject in CATALOGUE
        for remedy in subject.remedies
        for word in re.findall(r"<(?:every )?([a-z][a-z ]*)>", remedy.text)
        if word not in ALWAYS_FILLED and word not in subject.fill
    }
    assert without == UNKNOWN


RELEASES = ("24.05", "24.11", "25.05", "25.11", "26.05", "26.11")


def test_every_release_has_a_remedy() -> None:
    for subject in CATALOGUE:
        for release in RELEASES:
            if outside_releases(subject.since, subject.until, release) is not None:
                continue
            fitting = [
                remedy
                for remedy in subject.remedies
                if outside_releases(remedy.since, remedy.until, release) is None
            ]
            assert fitting, f"{subject.id} has none for {release}"


def test_of_two_kinds_of_thing_the_one_that_was_found_is_named() -> None:
    text = 's."<unit>".a = 1;\nt."<timer>".b = 1;'
    subject = control(Remedy(text=text), fill={"timer": Fill(pattern=r"(\w+)\.timer")}, check=True)
    assert given(subject, reason="backup.timer: bad-setting") == 't."backup".b = 1;'
    assert given(subject, reason="job.service: bad-setting") == 's."job".a = 1;'


@pytest.mark.parametrize(
    ("one", "reason", "line"),
    [
        ("FW-005", "declared and not reachable from outside: [8443]", "allowedTCPPorts = [ 8443 ]"),
        ("FW-007", "listening, not declared and not refused: 8123 (eth0)", "allowedTCPPorts = [ 8123 ]"),
        ("FW-006", "open and without listener: 9000", "# Nothing that can be reached listens on 9000"),
        ("BOOT-001", "failed: a.service, data.mount", "journalctl -b -u data.mount"),
        ("SYS-001", "net.bridge.bridge-nf-call-iptables: declared 1, is missing", '[ "br_netfilter" ]'),
        ("CTR-011", "not isolated from the host: {'box': ['user']}", 'containers."box"'),
        ("UNIT-005", "backup.timer: never elapses", 'systemd.timers."backup"'),
        ("BOOT-006", "the activation of this boot had errors: setupSecrets (1)", '"setupSecrets"'),
        ("SBX-D03", "more exposed than 5: {'web.service': 9.2}", 'systemd.services."web"'),
    ],
)  # fmt: skip
def test_bundled_checks_name_what_they_found(one: str, reason: str, line: str) -> None:
    options = {"networking.firewall.enable": True}
    host = replace(host_config(options=options), release="25.11")
    assert line in remedy_text(CATALOGUE.control(one), host, reason=reason, today=TODAY)


@pytest.mark.parametrize("secrets", [{}, {"token": {"file": "/x.age"}}])
def test_a_host_with_agenix_is_told_agenix(secrets: dict[str, object]) -> None:
    host = host_config(options={"age.secrets": secrets})
    told = {
        subject.id: remedy_text(subject, host, today=TODAY)
        for subject in CATALOGUE.controls.values()
        # SEC-003 is of hosts that have neither.
        if any("sops." in remedy.text for remedy in subject.remedies) and subject.id != "SEC-003"
    }
    assert len(told) > 7
    assert [control for control, text in told.items() if ("sops." in text) is bool(secrets)] == []


def test_a_state_version_that_follows_the_release_gets_the_release() -> None:
    version = "24.05.20240701.dirty"
    host = replace(host_config(), state_version=version, version=version, release="24.05")
    subject = CATALOGUE.controls["GEN-008"]
    seen = CONFIG_FACTS["state-version"].read(host, TODAY)
    assert isinstance(seen, Seen)
    assert seen.value == [f"system.stateVersion follows system.nixos.version ({version})"]
    assert remedy_text(subject, host, today=TODAY).startswith('system.stateVersion = "24.05";')


def test_the_password_that_is_in_the_configuration_is_taken_out() -> None:
    observed = ["alice.hashedPassword", "alice.initialPassword", "bob-2.password"]
    lines = given(CATALOGUE.control("AUTH-004"), observed=observed).splitlines()
    assert 'users.users."alice".hashedPasswordFile = "/run/secrets/password-of-alice";' in lines
    assert sum("hashedPasswordFile" in line for line in lines) == 2
    for name in observed:
        assert f"users.users.{name} = lib.mkForce null;" in lines


def test_a_state_version_above_the_release_gets_the_release() -> None:
    host = replace(host_config(), state_version="24.11", version="24.05.1", release="24.05")
    text = remedy_text(CATALOGUE.controls["GEN-008"], host, today=TODAY)
    assert text.startswith('system.stateVersion = "24.05";')


def test_what_a_warning_says_was_renamed_is_named_and_keeps_its_value() -> None:
    place = "defined in `/nix/store/x-source/modules/ssh.nix'"
    warnings = [
        f"The option `services.openssh.permitRootLogin' {place} has been renamed to `services.openssh.settings.PermitRootLogin'.",
        f"The option `boot.cleanTmpDir' {place} has been renamed to `boot.tmp.cleanOnBoot'.",
        "mdadm: Neither MAILADDR nor PROGRAM has been set.",
    ]
    lines = given(CATALOGUE.control("FLK-012"), observed=warnings).splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        "# services.openssh.permitRootLogin",
        "# boot.cleanTmpDir",
        "# Do what the warning says.",
    ]


def test_a_warning_about_the_network_gets_what_it_asks_for_and_no_other_text() -> None:
    asks = "is ordered after 'network-online.target' but doesn't depend on it"
    text = given(CATALOGUE.control("FLK-012"), observed=[f"web@1.service {asks}"])
    assert text == 'systemd.services."web@1".wants = [ "network-online.target" ];'


def test_what_was_found_gets_the_remedy_that_is_about_it() -> None:
    hashes = Remedy(text="h = 1;", about="password hash")
    subject = control(hashes, Remedy(text="a = 1;", until="23.11"), Remedy(text="t = 1;"))
    assert given(subject, observed=["x.nix:1: password hash ($6$)"]) == "h = 1;"
    assert given(subject, observed=["x.nix:1: token (ghp_)"]) == "t = 1;"
    assert given(subject, observed=["a: token", "b: password hash"]) == "h = 1;\nt = 1;"
    assert given(subject, reason="password hash") == "h = 1;"


def test_a_hash_of_a_password_in_the_source_goes_into_a_file() -> None:
    subject = CATALOGUE.control("SEC-016")
    hashed = [
        "users.nix:3: password hash (crypt) ($6$a)",
        "users.nix:9: password at the name initialPassword (br)",
    ]
    text = given(subject, observed=hashed)
    assert "hashedPasswordFile" in text
    assert "sops.secrets.token" not in text
    mixed = given(subject, observed=[*hashed, "web.nix:1: secret at the name API_KEY (co)"])
    assert "hashedPasswordFile" in mixed and "sops.secrets.token" in mixed
    other = given(subject, observed=["db.nix:1: password at the name psk (sc)"])
    assert "hashedPasswordFile" not in other


def test_sshd_is_told_the_setting_that_differs() -> None:
    subject = CATALOGUE.control("SSH-023")
    settings = {"services.openssh.settings": {"MaxAuthTries": 3}}
    host = host_config(options=settings)
    differs = ["MaxAuthTries is '60', declared '3'"]
    text = remedy_text(subject, host, observed=differs, today=TODAY)
    assert "services.openssh.settings.MaxAuthTries" in text
    assert "PermitRootLogin" not in text
    vain = [
        "PermitRootLogin no in services.openssh.extraConfig counts for nothing, since 'yes' comes first"
    ]
    text = remedy_text(subject, host, observed=vain, today=TODAY)
    assert 'services.openssh.settings.PermitRootLogin = lib.mkForce "no";' in text
    assert "MaxAuthTries" not in text
