"""Probes and readers of the catalogue: real guest scripts run here, recorded answers, odd answers."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pytest_nixos.local.process import SubprocessRunner
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.command import CommandResult
from pytest_nixos.observe.account_facts import ACCOUNT_FACTS
from pytest_nixos.observe.base import Probe, ProbeOutput, collect
from pytest_nixos.observe.daemons import AUDIT_FACTS, SSHD_FACTS
from pytest_nixos.observe.fact import Fact, Lacking, fact_probe, lines
from pytest_nixos.observe.kernel import modules
from pytest_nixos.observe.paths import path_states
from pytest_nixos.observe.podman import PODMAN_FACTS
from pytest_nixos.observe.resources import CLOCK_FACTS
from pytest_nixos.observe.runtime import addresses, programs, unit_processes
from pytest_nixos.observe.scan import SCAN_FACTS
from pytest_nixos.observe.storage import STORAGE_FACTS
from pytest_nixos.standards.audit_rules import missing_rules, parse_rule
from pytest_nixos.standards.config_facts import CONFIG_FACTS, application_services, unit_environment
from pytest_nixos.standards.flake_files import read_flake, scan_closure
from pytest_nixos.standards.loader import load_catalogue
from pytest_nixos.standards.read_texts import certificate_end, file_settings
from pytest_nixos.standards.readers import READERS, flake_directory, probes, read
from pytest_nixos.standards.releases import load_releases
from pytest_nixos.standards.sight import Seen, Unseen
from pytest_nixos.standards.templates import filled
from tests.unit.standards_samples import TODAY, certificate, host_config, sample_unit

Json = Any
CATALOGUE = tuple(load_catalogue())


def run_here(command: str) -> CommandResult:
    """Run a guest script in this machine's bash."""
    done = SubprocessRunner().run(["bash", "-c", command], deadline=Deadline.after(20))
    return CommandResult(
        command=command,
        exit_status=done.exit_status,
        stdout=done.stdout,
        stderr=done.stderr,
        duration_s=0.0,
    )


def ask(probe: Probe[Any]) -> Any:
    return probe.parse(collect(run_here, [probe])[probe.name])


def parsed(probe: Probe[Any], text: str, status: int = 0) -> Any:
    return probe.parse(ProbeOutput(stdout=text.encode(), exit_status=status))


def test_facts_come_back_by_name_with_what_is_lacking_and_what_failed() -> None:
    facts = {
        "good": Fact(script="echo a; echo; echo ' b '", parse=lines, about="x"),
        "lacking": Fact(script="exit 3", parse=lines, about="x", lacking="no such thing"),
        "broken": Fact(script="echo half; exit 7", parse=lines, about="x"),
        "toolless": Fact(script="echo a", parse=lines, about="x", needs=("no-such-program",)),
        "empty": Fact(script="true", parse=lines, about="x", needs=("bash",)),
    }
    assert ask(fact_probe("kind", facts, list(facts))) == {
        "good": ["a", "b"],
        "lacking": Lacking("no such thing"),
        "empty": [],
    }


def test_a_fact_that_prints_like_the_frame_does_not_forge_another() -> None:
    facts = {
        "loud": Fact(script=r"printf 'x\0360\036secret\n1'", parse=lines, about="x"),
        "secret": Fact(script="exit 7", parse=lines, about="x"),
    }
    assert "secret" not in ask(fact_probe("kind", {"loud": facts["loud"]}, ["loud"]))


def test_path_states_of_files_globs_and_missing_ones(tmp_path: Path) -> None:
    (tmp_path / "a b.key").write_text("one\ntwo")
    (tmp_path / "a b.key").chmod(0o600)
    (tmp_path / "c.key").symlink_to(tmp_path / "a b.key")
    pattern, missing = f"{tmp_path}/*.key".replace(" ", "?"), f"{tmp_path}/none"
    found = ask(path_states([pattern, missing, str(tmp_path)], contents=[pattern]))
    assert [s.path for s in found[pattern]] == [f"{tmp_path}/a b.key", f"{tmp_path}/c.key"]
    assert {s.mode for s in found[pattern]} == {"600"}
    assert {s.content for s in found[pattern]} == {"one\ntwo"}
    assert found[missing] == ()
    assert found[str(tmp_path)][0].type == "directory"


def test_passwd_facts_never_print_a_hash(tmp_path: Path) -> None:
    shadow = tmp_path / "shadow"
    shadow.write_text("root:!:1::::::\nalice:$6$salt$hash:1::::::\nbob::1::::::\n")
    for name, fact in ACCOUNT_FACTS.items():
        if "/etc/shadow" not in fact.script:
            continue
        script = fact.script.replace("/etc/shadow", str(shadow))
        result = run_here(script)
        assert b"hash" not in result.stdout and b"salt" not in result.stdout, name
    empty = ACCOUNT_FACTS["empty-passwords"]
    assert empty.parse(run_here(empty.script.replace("/etc/shadow", str(shadow))).stdout_text) == [
        "bob"
    ]
    root = ACCOUNT_FACTS["root-password"]
    assert (
        root.parse(run_here(root.script.replace("/etc/shadow", str(shadow))).stdout_text)
        == "locked"
    )


def test_programs_are_found_only_if_the_search_came_to_its_end() -> None:
    assert ask(programs(["bash", "no-such-program"])) == ("bash",)
    assert parsed(programs(["telnet"]), "") is None


def test_module_states() -> None:
    answer = (
        "=rules\ninstall dccp /run/current-system/sw/bin/false\ninstall odd modprobe other\n=built-in\nkernel/drivers/loop.ko\n"
        "=loadable\nkernel/net/sctp/sctp.ko.xz\nkernel/net/dccp/dccp.ko.xz\n=loaded\nusb_storage\next4\n=complete\n"
    )
    names = ["dccp", "sctp", "rds", "loop", "usb-storage"]
    assert parsed(modules(names), answer) == {
        "dccp": "blocked", "sctp": "loadable", "rds": "absent", "loop": "built-in", "usb-storage": "loaded",
    }  # fmt: skip
    assert parsed(modules(names), answer.replace("=complete", "")) is None
    assert "usb[-_]storage" in modules(names).script


def test_processes_tell_only_the_variables_that_were_asked_for() -> None:
    answer = "a.service\x1f12\x1f-900\x1f/bin/a -t 4 \x1fOLLAMA_DEBUG=0\n\x1e"
    process = parsed(unit_processes(["a.service"]), answer)["a.service"]
    assert (process.pid, process.oom_score_adj, process.command_line) == (12, -900, "/bin/a -t 4")
    assert process.environment == {"OLLAMA_DEBUG": "0"}
    assert 'grep -E "^($wanted)="' in unit_processes(["a.service"], variables=["X"]).script


def test_addresses() -> None:
    links = [{"addr_info": [{"local": "10.0.0.41", "prefixlen": 19}]}, {"addr_info": [{}]}]
    assert parsed(addresses(), json.dumps(links)) == ("10.0.0.41/19",)
    assert parsed(addresses(), 'Object "address" is unknown') is None


def test_sshd_settings() -> None:
    text = "port 22\nport 2222\nciphers a,b\nallowusers alice bob\npermitrootlogin no\n"
    assert SSHD_FACTS["settings"].parse(text) == {
        "port": ["22", "2222"],
        "ciphers": ["a", "b"],
        "allowusers": ["alice", "bob"],
        "permitrootlogin": "no",
    }


def test_sshd_settings_that_are_declared_and_in_force() -> None:
    declared = {
        "PermitRootLogin": "prohibit-password",
        "UsePAM": True,
        "Macs": ["a", "b"],
        "AllowUsers": None,
        "ClientAliveInterval": 0,
    }
    host = host_config(options={"services.openssh.settings": declared})
    running = {
        "permitrootlogin": "without-password", "usepam": "yes", "macs": ["a", "b"], "clientaliveinterval": "0",
    }  # fmt: skip
    pick = READERS["sshd-declared"].pick
    assert pick({"settings": running}, {}, host) == Seen([])
    found = pick({"settings": {**running, "usepam": "no"}}, {}, host)
    assert found == Seen(["UsePAM is 'no', declared 'yes'"])
    assert isinstance(pick({"settings": Lacking("no sshd")}, {}, host), Unseen)


def test_audit_rules_in_either_spelling_are_the_same() -> None:
    watch = parse_rule("-w /etc/passwd/ -p wa -k identity")
    loaded = parse_rule("-a always,exit -S all -F path=/etc/passwd -F perm=wa -F key=identity")
    assert watch == loaded
    assert parse_rule("-b 8192") is None
    assert parse_rule("-w 'unbalanced") is None


@pytest.mark.parametrize(
    ("loaded", "missing"),
    [
        (["-a always,exit -F arch=b64 -S mount -F auid>=1000 -F auid!=-1 -F key=k"], ["b32 mount"]),
        (["-a always,exit -F arch=b64 -S mount -F auid>=1000"], ["b64 mount", "b32 mount"]),
        (
            [
                f"-a always,exit -F arch={a} -S mount,umount -F auid>=1000 -F auid!=unset"
                for a in ("b64", "b32")
            ],
            [],
        ),
    ],
)
def test_wanted_system_calls_need_both_architectures_and_all_filters(
    loaded: list[str], missing: list[str]
) -> None:
    assert (
        missing_rules(loaded, syscalls=["mount"], filters=["auid>=1000", "auid!=unset"]) == missing
    )


def test_declared_audit_rules_are_found_in_another_spelling() -> None:
    declared = [
        "-a exit,always -F arch=b64 -S execve,chmod -k exec",
        "-w /etc/shadow -p wa",
        "-f 1",
    ]
    loaded = ["-a always,exit -F arch=b64 -S chmod,execve -F key=exec"]
    assert missing_rules(loaded, declared=declared) == ["-w /etc/shadow -p wa"]


def test_audit_status_in_old_and_new_spelling() -> None:
    parse = AUDIT_FACTS["status"].parse
    assert parse("enabled 1\nfailure 1\nloginuid_immutable 0 unlocked\n")["enabled"] == "1"
    assert parse("loginuid_immutable 1 locked\n")["loginuid_immutable"] == "1 locked"


def test_plain_mounts_are_those_without_encryption_below() -> None:
    tree = {
        "blockdevices": [
            {"type": "disk", "mountpoints": [None], "children": [
                {"type": "part", "mountpoints": ["/boot"]},
                {"type": "part", "mountpoints": [None], "children": [{"type": "crypt", "mountpoints": ["/"]}]},
                {"type": "part", "mountpoints": ["/data"]},
            ]},
        ]
    }  # fmt: skip
    parse = STORAGE_FACTS["plain-mounts"].parse
    assert parse(json.dumps(tree)) == ["/data"]
    assert parse("lsblk: not found") == ["lsblk gave no readable answer"]


def test_luks_devices() -> None:
    found = STORAGE_FACTS["luks"].parse("/dev/sda2=2|argon2id,argon2id,|1|0|2\n/dev/sdb=1||0|0|0\n")
    assert found["/dev/sda2"] == {
        "version": "2", "kdf": ["argon2id"], "tpm2": True, "recovery": False, "slots": 2,
    }  # fmt: skip
    assert found["/dev/sdb"]["kdf"] == []


def test_podman_containers() -> None:
    document = [
        {
            "Name": "web",
            "HostConfig": {"Privileged": False, "NetworkMode": "host"},
            "Mounts": [{"Source": "/etc"}],
        }
    ]
    found = PODMAN_FACTS["containers"].parse(json.dumps(document))
    assert found["web"]["namespaces"] == ["private", "host", "private"]
    assert found["web"]["mounts"] == ["/etc"]
    assert PODMAN_FACTS["containers"].parse("oops") == {}


def test_spans_of_time() -> None:
    parse = CLOCK_FACTS["timesync"].parse
    assert parse("PollIntervalMaxUSec=34min 8s\nSystemNTPServers=a b\n") == {
        "servers": ["a", "b"],
        "poll-max-s": 2048.0,
    }


@pytest.mark.parametrize("text", ["", "\x1e\x1f\x1d", "=\n= =\n", "\xff\xfe" * 50, "x" * 10000])
def test_odd_answers_of_a_guest_raise_nothing(text: str) -> None:
    host = host_config(options={"services.openssh.settings": {}, "systemd.network.networks": {}})
    asked = probes(CATALOGUE, host)
    for kind, probe in asked.items():
        seen = probe.parse(ProbeOutput(stdout=text.encode("latin-1"), exit_status=1))
        for control in CATALOGUE:
            if control.observed is not None and control.observed.kind == kind:
                sight = READERS[kind].pick(seen, control.observed.parameters, host)
                assert isinstance(sight, Seen | Unseen)


class RecordingStore:
    """Stands for the observations of a machine; counts how often it is asked."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    def prefetch(self, probes: list[Probe[object]]) -> None:
        self.batches.append([probe.name for probe in probes])

    def of(self, probe: Probe[Any]) -> Any:
        return probe.parse(ProbeOutput(stdout=b"", exit_status=0))


def test_the_whole_catalogue_is_read_in_one_round_trip() -> None:
    host = host_config(units={"app.service": sample_unit("app.service")})
    store = RecordingStore()
    seen = read(CATALOGUE, host, store)
    assert len(store.batches) == 1
    assert len(set(store.batches[0])) == len(store.batches[0])
    assert set(seen) == set(probes(CATALOGUE, host))


def test_every_probe_is_valid_bash() -> None:
    host = host_config(options={"services.ollama.host": "127.0.0.1"})
    scripts = [probe.script for probe in probes(CATALOGUE, host).values()]
    done = SubprocessRunner().run(
        ["bash", "-n", "-c", "\n".join(f"(\n{script}\n)" for script in scripts)],
        deadline=Deadline.after(20),
    )
    assert (done.exit_status, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("options", "url"),
    [
        ({"a.host": "0.0.0.0", "a.port": 80}, "http://127.0.0.1:80/x"),
        ({"a.host": "::", "a.port": "81"}, "http://[::1]:81/x"),
        ({"a.port": 80}, "http://127.0.0.1:80/x"),
    ],
)
def test_templates_are_filled_from_options(options: Mapping[str, Json], url: str) -> None:
    template = "http://{a.host|127.0.0.1}:{a.port}/x"
    assert filled(template, host_config(options=dict(options))) == Seen(url)


def test_templates_refuse_what_is_no_address() -> None:
    template = "http://{a.host|127.0.0.1}:{a.port}/x"
    assert isinstance(filled(template, host_config()), Unseen)
    odd = host_config(options={"a.host": "x; rm -rf /", "a.port": 80})
    assert isinstance(filled(template, odd), Unseen)


def test_settings_of_files() -> None:
    text = "# c\n[Section]\nStorage=none\nUMASK\t077\n  minlen = 15\nStorage=external\n"
    assert file_settings(text) == {"Storage": "external", "UMASK": "077", "minlen": "15"}


def test_the_end_of_a_certificate() -> None:
    end = certificate_end(certificate(days_left=30))
    assert end is not None
    assert (end - dt.datetime.now(dt.UTC)).days == 30
    assert certificate_end("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----") is None
    assert certificate_end("nothing") is None


def test_application_services_are_what_the_host_is_there_for() -> None:
    names = [
        "web.service",
        "sshd.service",
        "systemd-oomd.service",
        "getty@tty1.service",
        "job.service",
        "web.timer",
    ]
    units = {name: sample_unit(name) for name in names}
    units["job.service"] = sample_unit("job.service", Type=("oneshot",))
    assert application_services(host_config(units=units)) == ("web.service",)


def test_the_environment_of_a_unit() -> None:
    unit = sample_unit("a.service", Environment=('"A=b c" D=e', "F=g"))
    assert unit_environment(unit) == {"A": "b c", "D": "e", "F": "g"}


def test_a_canary_in_the_closure_is_found_and_not_repeated(tmp_path: Path) -> None:
    canary = "pytest-nixos-canary-" + "0123456789abcdef" * 2
    paths = [tmp_path / "a-etc", tmp_path / "b-app", tmp_path / "c-docs", tmp_path / "d-file"]
    for path in paths[:3]:
        path.mkdir()
    (paths[0] / "token").write_text(f"x {canary} y")
    (paths[1] / "binary").write_bytes(b"\0" + canary.encode())
    (paths[2] / "share/doc").mkdir(parents=True)
    (paths[2] / "share/doc/example").write_text(canary)
    paths[3].write_text(f"-----BEGIN OPENSSH PRIVATE KEY-----\n{'A' * 70}\n")
    scan = scan_closure(paths)
    assert scan.paths == 4
    assert scan.secrets == (f"{paths[0]}/token: pytest-nixos canary", f"{paths[3]}: private key")
    assert scan.private_keys == (f"{paths[3]}: private key",)
    assert canary not in repr(scan)


def test_a_closure_scan_leaves_nixpkgs_out(tmp_path: Path) -> None:
    (tmp_path / "pkgs/top-level").mkdir(parents=True)
    (tmp_path / "nixos/modules").mkdir(parents=True)
    (tmp_path / "nixos/modules/key").write_text("AGE-SECRET-KEY-1" + "Q" * 58)
    assert scan_closure([tmp_path]).secrets == ()


def test_reading_a_flake(tmp_path: Path) -> None:
    (tmp_path / "flake.lock").write_text('{"nodes": {}, "root": "root"}')
    (tmp_path / "flake.nix").write_text("{ }")
    (tmp_path / ".direnv").mkdir()
    (tmp_path / ".direnv/x.nix").write_text("<nixpkgs>")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/flake.nix").write_text("{ x = <nixpkgs>; }")
    flake = read_flake(tmp_path)
    assert flake.lock == {"nodes": {}, "root": "root"}
    assert flake.lock_tracked is None
    assert set(flake.sources) == {"flake.nix"}
    (tmp_path / ".git").mkdir()
    for name, tracked in (("flake.nix", False), ("sub/flake.lock", False), ("flake.lock", True)):
        entry = len(name).to_bytes(2) + name.encode() + b"\0\0"
        (tmp_path / ".git/index").write_bytes(b"DIRC\0\0\0\2\0\0\0\1" + entry)
        assert read_flake(tmp_path).lock_tracked is tracked, name
    (tmp_path / ".git/index").write_bytes(b"DIRC\0\0\0\4\0\0\0\1")
    assert read_flake(tmp_path).lock_tracked is None
    assert read_flake(tmp_path / "none").lock is None


@pytest.mark.parametrize("url", ["{0}/sub", "path:{0}/sub", "git+file://{0}?ref=main&dir=sub"])
def test_directory_of_a_local_flake(tmp_path: Path, url: str) -> None:
    (tmp_path / "sub").mkdir()
    assert flake_directory(url.format(tmp_path)) == tmp_path / "sub"
    assert flake_directory("github:owner/repo?dir=sub") is None


@pytest.mark.parametrize(
    ("release", "supported"),
    [
        ("24.05", False),
        ("24.05pre-git", False),
        ("26.05", True),
        ("27.05", True),
        ("unstable", False),
    ],
)
def test_supported_releases(release: str, supported: bool) -> None:
    assert (load_releases().release_problem(release, TODAY) is None) == supported


@pytest.mark.parametrize(
    ("branch", "supported"),
    [
        ("nixos-unstable", True),
        ("nixos-26.05", True),
        ("nixos-26.05-small", True),
        ("nixos-24.05", False),
        ("my-fork", False),
    ],
)
def test_supported_branches(branch: str, supported: bool) -> None:
    assert (load_releases().branch_problem(branch, TODAY) is None) == supported


def test_secret_files_in_the_store() -> None:
    units = {
        name: sample_unit(name, **{key: (value,)})
        for name, key, value in (
            ("a.service", "LoadCredential", "token:/run/secrets/token"),
            ("b.service", "LoadCredential", "token:/nix/store/x-token"),
            ("c.service", "EnvironmentFile", "/nix/store/x-settings.env"),
        )
    }
    options = {
        "users.users": {
            "ann": {"hashedPasswordFile": "/nix/store/x-ann"},
            "bob": {"hashedPasswordFile": "/run/secrets/bob"},
        },
        "services.openssh.hostKeys": [{"path": "/nix/store/x-key", "type": "ed25519"}],
    }
    fact = CONFIG_FACTS["secret-files-in-store"]
    assert fact.read(host_config(units=units, options=options), TODAY) == Seen(
        [
            "b.service: LoadCredential",
            "services.openssh.hostKeys.0.path",
            "users.users.ann.hashedPasswordFile",
        ]
    )


def test_account_facts_read_files_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "passwd").write_text(
        "root:x:0:0::/root:/bin/bash\ntoor:x:0:0::/root:/bin/sh\nann:x:1000:100::/home/ann:/bin/bash\n"
        "app:x:990:990::/var/empty:/bin/bash\nno:x:991:991::/var/empty:/run/current-system/sw/bin/nologin\n"
        "none:x:992:992::/var/empty:\nodd\nzwei:x:1000:100::/home/zwei:/bin/false\n"
    )
    (tmp_path / "group").write_text("root:x:0:\nusers:x:100:ann\n")
    (tmp_path / "shadow").write_text(
        "root::1::::::\nann:$y$j9T$a$b:1::::::\napp:!:1::::::\nbob:$6$s$h:1::::::\n"
    )
    (tmp_path / "login.defs").write_text("# x\nENCRYPT_METHOD YESCRYPT\n")

    def seen(name: str) -> object:
        fact = ACCOUNT_FACTS[name]
        result = run_here(fact.script.replace("/etc/", f"{tmp_path}/"))
        assert result.exit_status == 0, result.stderr_text
        return fact.parse(result.stdout_text)

    assert seen("root-password") == "empty"
    assert seen("empty-passwords") == ["root"]
    assert seen("superusers") == ["root", "toor"]
    assert seen("duplicate-ids") == ["passwd 0", "passwd 1000"]
    assert seen("system-shells") == ["app"]
    assert seen("persons") == ["ann"]
    assert seen("password-hashing") == {"method": "YESCRYPT", "schemes": ["6", "y"]}
    for name in ("superusers", "duplicate-ids", "empty-passwords", "password-hashing"):
        script = ACCOUNT_FACTS[name].script.replace("/etc/", f"{tmp_path}/none/")
        assert run_here(script).exit_status != 0, name


def test_one_walk_answers_all_scans(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "open dir").mkdir(parents=True)
    (tree / "open dir").chmod(0o777)
    (tree / "sticky").mkdir()
    (tree / "sticky").chmod(0o1777)
    for name, mode in (("open", 0o666), ("setuid", 0o4755), ("plain", 0o644)):
        (tree / name).write_text("x")
        (tree / name).chmod(mode)
    wanted = ["world-writable-directories", "world-writable-files", "setuid-outside-wrappers"]
    probe = fact_probe("scan", SCAN_FACTS, wanted)
    assert probe.script.count("find / ") == 1
    script = probe.script.replace("find / ", f"find {tree} ")
    result = run_here(script)
    seen = probe.parse(ProbeOutput(stdout=result.stdout, exit_status=0))
    assert seen == {
        "world-writable-directories": [f"{tree}/open dir"],
        "world-writable-files": [f"{tree}/open"],
        "setuid-outside-wrappers": [f"{tree}/setuid"],
    }
