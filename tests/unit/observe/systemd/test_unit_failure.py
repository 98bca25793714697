"""Why services failed, from systemd's own words (of systemd 257)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from msgspec.structs import replace

from pytest_nixos.observe import why_failed
from tests.unit.standards.samples import host_config, sample_unit

STEP = "app.service: Failed at step {} spawning /nix/store/x/bin/app: No such file or directory"
EXITED = "app.service: Main process exited, code=exited, status={}"
RESULT = "app.service: Failed with result '{}'."
NO_MOUNT = "app.service: Failed to set up mount namespacing: {}: No such file or directory"
NO_FILE = "app.service: Failed to load environment files: No such file or directory"
OWN = "2026-11-30T11:36:14+00:00 it app[7]: {}"
#: What the remedy is where nobody but the journal tells.
READ = "# app.service: read why, then correct it: journalctl -b -u app.service"
OPTION = 'systemd.services."app".serviceConfig'
DUMPED = "app.service: Main process exited, code=dumped, status={}"
SEE_WHO = (
    "# app.service: see who listens there, ss -lntup{}; then give one of the two another\n"
    '# address or port: systemd.services."app"'
)
SLOW = (
    "# app.service: see what it waits for, journalctl -b -u app.service; if it is only slow, raise\n"
    f"# {OPTION}.TimeoutStartSec, or TimeoutStopSec where it does not end."
)
RULE = 'systemd.tmpfiles.settings."app"."/srv/a".d'


def told(*said: str, **service: str) -> tuple[str, str]:
    unit = sample_unit("app.service", **{key: (value,) for key, value in service.items()})
    failures = why_failed({"app.service": said}, host_config(units={"app.service": unit}))
    return failures.by_unit["app.service"].why, failures.remedy


@pytest.mark.parametrize(
    ("said", "service", "why", "remedy"),
    [
        (
            (STEP.format("USER"), EXITED.format("217/USER"), RESULT.format("exit-code")),
            {"User": "app"},
            "its account app is not there, and the host declares none",
            'users.users."app" = { isSystemUser = true; group = "app"; };\nusers.groups."app" = { };',
        ),
        ((EXITED.format("217/USER"),), {}, "its account is not there", READ),
        (
            (STEP.format("PAM"), EXITED.format("224/PAM")),
            {"PAMName": "apq"},
            "PAM refuses it a session by the service apq of its PAMName=",
            (
                "# PAM takes a service that nothing declares for /etc/pam.d/other, which refuses everybody:\n"
                'security.pam.services."apq" = { };'
            ),
        ),
        ((EXITED.format("224/PAM"),), {}, "PAM refuses it a session", READ),
        (
            (STEP.format("GROUP"),),
            {"SupplementaryGroups": "video2"},
            "its group video2 is not there",
            'users.groups."video2" = { };',
        ),
        (
            (NO_MOUNT.format("/var/lib/app/data"), STEP.format("NAMESPACE")),
            {"ReadWritePaths": "/var/lib/app/data"},
            "/var/lib/app/data, which its unit names, is not there",
            f'{OPTION}.StateDirectory = "app/data";',
        ),
        (
            (NO_MOUNT.format("/run/systemd/unit-root/srv/a"), STEP.format("NAMESPACE")),
            {"User": "alice"},
            "/srv/a, which its unit names, is not there",
            f'{RULE} = {{ mode = "0750"; user = "alice"; }};',
        ),
        (
            (NO_MOUNT.format("/var/lib/b"), STEP.format("NAMESPACE")),
            {"StateDirectory": "app"},
            "/var/lib/b, which its unit names, is not there",
            'systemd.tmpfiles.settings."app"."/var/lib/b".d = { mode = "0750"; user = "root"; };',
        ),
        (
            (STEP.format("CHDIR"),),
            {"WorkingDirectory": "/srv/a"},
            "it cannot enter its working directory /srv/a",
            f'{RULE} = {{ mode = "0750"; user = "root"; }};',
        ),
        (
            (NO_FILE, RESULT.format("resources")),
            {"EnvironmentFile": "/etc/app.env"},
            "its EnvironmentFile /etc/app.env is not there",
            (
                "# Have /etc/app.env made before it starts, or let it do without:\n"
                f'{OPTION}.EnvironmentFile = lib.mkForce "-/etc/app.env";'
            ),
        ),
        ((STEP.format("SECCOMP"),), {}, "systemd cannot set it up (SECCOMP)", READ),
        (
            (EXITED.format("3/NOTIMPLEMENTED"), RESULT.format("exit-code")),
            {},
            "exit status 3",
            READ,
        ),
        (
            (EXITED.format("1/FAILURE"), RESULT.format("timeout")),
            {},
            "in the time that it has",
            SLOW,
        ),
        (
            (RESULT.format("watchdog"),),
            {"WatchdogSec": "12"},
            "it did not answer systemd's watchdog, as WatchdogSec=12 demands",
            (
                "# app.service has to say WATCHDOG=1 by sd_notify(3) within each WatchdogSec=: if its program does not,\n"
                f"{OPTION}.WatchdogSec = lib.mkForce 0;"
            ),
        ),
        (
            (DUMPED.format("31/SYS"), RESULT.format("core-dump")),
            {"SystemCallFilter": "@basic-io"},
            "it made a system call that SystemCallFilter=@basic-io forbids",
            (
                "# Which call it was: journalctl -b -g SECCOMP, or coredumpctl info app.service\n"
                f'{OPTION}.SystemCallFilter = lib.mkForce [ "@system-service" ];'
            ),
        ),
        (
            (DUMPED.format("5/TRAP"), RESULT.format("core-dump")),
            {"MemoryDenyWriteExecute": "true"},
            "it crashed and dumped core (TRAP), and MemoryDenyWriteExecute=",
            (
                "# Where app.service compiles as it runs (JavaScript, Java, .NET, LuaJIT):\n"
                f"{OPTION}.MemoryDenyWriteExecute = lib.mkForce false;"
            ),
        ),
        (
            (DUMPED.format("11/SEGV"), RESULT.format("core-dump")),
            {},
            "dumped core (signal SEGV)",
            READ,
        ),
        (
            (RESULT.format("oom-kill"),),
            {"MemoryMax": "64M"},
            "killed for want of memory: it may take MemoryMax=64M",
            f"# app.service takes more than MemoryMax=64M: have it take less, or raise\n# {OPTION}.MemoryMax",
        ),
        (
            (STEP.format("CREDENTIALS"),),
            {"LoadCredential": "db:/run/secrets/db"},
            "a credential of its LoadCredential= cannot be read: /run/secrets/db",
            (
                "# Before app.service starts, something has to make /run/secrets/db: correct the path,\n"
                "# or declare the secret (sops.secrets, age.secrets)."
            ),
        ),
        (
            (
                OWN.format("ls: cannot access '/srv/envy': No such file or directory"),
                EXITED.format("2/INVALIDARGUMENT"),
                RESULT.format("exit-code"),
            ),
            {},
            "exit status 2, its last words: ls: cannot access '/srv/envy': No such file or directory",
            (
                "# app.service: /srv/envy is not there; if it is a directory, have it made before it starts:\n"
                '#   systemd.tmpfiles.settings."app"."/srv/envy".d = { mode = "0750"; user = "root"; };'
            ),
        ),
        (
            (
                OWN.format("PermissionError: [Errno 13] Permission denied: '/var/lib/app/db'"),
                EXITED.format("1/FAILURE"),
            ),
            {"User": "alice"},
            "Permission denied: '/var/lib/app/db'",
            (
                "# app.service: /var/lib/app/db is not open to alice; if it is a directory, have it made before it starts:\n"
                f'#   {OPTION}.StateDirectory = "app/db";'
            ),
        ),
        (
            (
                OWN.format(
                    '[emerg] 8#8: cannot load certificate key "/var/lib/certs/key.pem": BIO_new_file() failed'
                    " (SSL: error:8000000D:system library::Permission denied:calling fopen(/var/lib/certs/key.pem, r))"
                ),
                EXITED.format("1/FAILURE"),
            ),
            {"User": "nginx"},
            "cannot load certificate key",
            (
                "# app.service: /var/lib/certs/key.pem is not open to nginx: have what makes it give it to a group of nginx"
                " (chown root:GROUP, chmod 0640),\n# and its folders too; the certificate itself may be open to all."
            ),
        ),
        (
            (
                OWN.format(
                    '[emerg] cannot load certificate "/srv/c.pem": (No such file or directory)'
                ),
                EXITED.format("1/FAILURE"),
            ),
            {},
            "cannot load certificate",
            "# app.service: /srv/c.pem is not there: correct the path, or have what makes it run before (requires, after).",
        ),
        # What sums up, or is done without, tells less than what stands before it.
        (
            (
                OWN.format('LOG:  invalid connection type "locl"'),
                OWN.format("FATAL:  could not load /nix/store/x/pg_hba.conf"),
                EXITED.format("1/FAILURE"),
            ),
            {},
            'its last words: LOG:  invalid connection type "locl"',
            READ,
        ),
        (
            (
                OWN.format("error: /etc/l.conf:9 unknown user 'alcie'"),
                OWN.format("log /var/log/wtmp does not exist -- skipping"),
                EXITED.format("1/FAILURE"),
            ),
            {},
            "its last words: error: /etc/l.conf:9 unknown user 'alcie'",
            READ,
        ),
        (
            (NO_MOUNT.format("/models"), STEP.format("NAMESPACE")),
            {"DynamicUser": "true"},
            "/models, which its unit names, is not there",
            (
                "# app.service runs under DynamicUser=, whose account owns nothing but what systemd makes for it, below\n"
                f"# /var/lib by {OPTION}.StateDirectory: keep /models there, or run it as an account that is declared."
            ),
        ),
        # Tries that came too fast are no reason of their own.
        (
            (
                OWN.format("no luck"),
                EXITED.format("3/NOTIMPLEMENTED"),
                RESULT.format("start-limit-hit"),
            ),
            {},
            "exit status 3, its last words: no luck",
            READ,
        ),
        (
            (
                "app[7]: bash: line 1: /srv/app/log: Read-only file system",
                EXITED.format("1/FAILURE"),
            ),
            {"ProtectSystem": "strict"},
            "exit status 1: it may not write /srv/app/log, since ProtectSystem= is strict",
            f'{OPTION}.ReadWritePaths = [ "/srv/app" ];',
        ),
        (
            (
                "sh[7]: /nix/store/x/bin/app-start: line 3: ip: command not found",
                EXITED.format(127),
            ),
            {},
            "exit status 127: no command ip in its PATH",
            'systemd.services."app".path = [ pkgs.iproute2 ];',
        ),
        (
            ("app[7]: app: 3: frobnicate: not found", EXITED.format("127/n/a")),
            {},
            "no command frobnicate in its PATH",
            '# app.service: add the package that has frobnicate: systemd.services."app".path',
        ),
        (("app[7]: config.yaml: not found", EXITED.format("1/FAILURE")), {}, "status 1", READ),
        (
            ("app[7]: listen tcp :80: bind: permission denied", EXITED.format("1/FAILURE")),
            {"User": "app"},
            "may not listen on a port below 1024",
            f'{OPTION}.AmbientCapabilities = [ "CAP_NET_BIND_SERVICE" ];',
        ),
        (
            ("nginx[7]: bind() to 0.0.0.0:80 failed (13: Permission denied)", EXITED.format(1)),
            {},
            "may not listen on a port below 1024",
            f'{OPTION}.AmbientCapabilities = [ "CAP_NET_BIND_SERVICE" ];',
        ),
        (
            ("app[7]: OSError: [Errno 98] Address already in use", EXITED.format("1/FAILURE")),
            {},
            "another program listens on its address already",
            SEE_WHO.format(""),
        ),
        (
            (
                OWN.format("10:22:31 listen tcp 10.0.0.12:9000: bind: address already in use"),
                EXITED.format(1),
            ),
            {},
            "another program listens on its address already",
            SEE_WHO.format(" 'sport = :9000'"),
        ),
        # Without that setting the file system itself is read-only; and what is of the system is
        # not for a service to write.
        (
            ("x: /srv/app/log: Read-only file system", EXITED.format("1/FAILURE")),
            {},
            "status 1",
            READ,
        ),
        (
            ("x: /etc/app/log: Read-only file system", EXITED.format("1/FAILURE")),
            {"ProtectSystem": "full"},
            "it may not write /etc/app/log",
            READ,
        ),
        ((RESULT.format("oom-kill"),), {}, "killed for want of memory", READ),
        (("app[7]: no luck",), {}, "", READ),
        # Only text that means itself inside of a Nix string is put into one.
        (
            (NO_MOUNT.format("/srv/${builtins.abort}"), STEP.format("NAMESPACE")),
            {},
            "which its unit names, is not there",
            READ,
        ),
    ],
)
def test_why_a_service_failed(
    said: tuple[str, ...], service: dict[str, str], why: str, remedy: str
) -> None:
    found, text = told(*said, **service)
    assert why in found if why else not found
    assert text == remedy


@pytest.mark.parametrize(
    ("listening", "said", "command", "holder"),
    [
        (True, "listen tcp :9000: bind: address already in use", "", "web.service"),
        (True, "OSError: [Errno 98] Address already in use", "/bin/app --port=9000", "web.service"),
        (False, "bind: 0.0.0.0:9000: Address already in use", "", "door.socket"),
    ],
)
def test_who_listens_on_its_port_is_named(
    listening: bool, said: str, command: str, holder: str
) -> None:
    unit = sample_unit("app.service", ExecStart=(command,))
    door = sample_unit("door.socket")
    door = replace(door, settings={"Socket": {"ListenStream": ("127.0.0.1:9000",)}})
    units = {"app.service": unit} | ({} if listening else {"door.socket": door})
    failures = why_failed(
        {"app.service": [OWN.format(said), EXITED.format(1)]},
        host_config(units=units),
        lambda: {80: ["other.service"], 9000: ["web.service" if listening else "init.scope"]},
    )
    assert f"{holder} listens on port 9000 already" in failures.words
    assert f"app.service and {holder} want the same port 9000" in failures.remedy


def test_a_service_that_does_not_take_its_own_socket() -> None:
    door = replace(sample_unit("app.socket"), settings={"Socket": {"ListenStream": ("9000",)}})
    failures = why_failed(
        {"app.service": [OWN.format("listen tcp :9000: address already in use"), EXITED.format(1)]},
        host_config(units={"app.socket": door}),
        lambda: {9000: ["init.scope"]},
    )
    assert "its own app.socket listens on port 9000 already" in failures.words
    assert 'systemd.sockets."app".enable = false;' in failures.remedy


def test_nobody_asks_who_listens_without_need() -> None:
    def asked() -> Mapping[int, Sequence[str]]:
        raise AssertionError("asked")

    why_failed({"app.service": [EXITED.format(1)]}, host_config(), asked)


def test_a_program_that_cannot_be_started_is_named() -> None:
    why, remedy = told(STEP.format("EXEC"))
    assert why == "its program /nix/store/x/bin/app cannot be started"
    assert all(line.startswith("#") for line in remedy.splitlines())


def test_a_service_that_never_says_that_it_is_ready() -> None:
    why, remedy = told(RESULT.format("timeout"), Type="notify")
    assert why == "it did not say in time that it is ready, as Type=notify demands"
    assert "sd_notify(3)" in remedy
    assert all(line.startswith("#") for line in remedy.splitlines())
    assert "TimeoutStartSec" in told(RESULT.format("timeout"), Type="oneshot")[1]


def test_a_step_beside_the_program_that_does_not_end() -> None:
    late = "systemd[1]: app.service: start-post operation timed out. Terminating."
    why, remedy = told(late, RESULT.format("timeout"), Type="notify")
    assert why == "its postStart did not end in the time that it has"
    assert f"{OPTION.removesuffix('.serviceConfig')}.postStart" in remedy
    assert all(line.startswith("#") for line in remedy.splitlines())


def test_what_is_said_last_counts() -> None:
    why, _ = told(STEP.format("EXEC"), EXITED.format("1/FAILURE"), STEP.format("CHDIR"))
    assert "working directory" in why


def test_an_instance_is_declared_by_its_template() -> None:
    template = sample_unit("job@.service", User=("nobody2",))
    host = host_config(units={"job@.service": template})
    said = "job@1.service: Failed at step USER spawning /bin/job: No such process"
    assert 'users.users."nobody2"' in why_failed({"job@1.service": [said]}, host).remedy


def test_many_are_told_in_one_line_and_what_mends_two_is_told_once() -> None:
    units = {name: sample_unit(name, User=("app",)) for name in ("a.service", "b.service")}
    said = [STEP.format("USER")]
    failures = why_failed(
        {"a.service": said, "b.service": said, "c.service": []}, host_config(units=units)
    )
    assert failures.words.startswith("a.service (its account app is not there")
    assert failures.words.endswith("), c.service")
    assert failures.remedy.count("users.users") == 1
    assert failures.remedy.endswith("journalctl -b -u c.service")


def test_an_account_that_is_declared_is_not_declared_again() -> None:
    unit = sample_unit("app.service", User=("alice",))
    host = host_config(units={"app.service": unit})
    host = replace(host, users={"alice": next(iter(host.users.values()), None)})
    failures = why_failed({"app.service": [STEP.format("USER")]}, host)
    assert "though the host declares it" in failures.words
    assert failures.remedy == READ


def why_of(unit: str, *said: str) -> tuple[str, str]:
    failures = why_failed({unit: said}, host_config())
    return failures.by_unit[unit].why, failures.remedy


def test_a_value_that_the_kernel_refuses_is_named() -> None:
    why, remedy = why_of(
        "systemd-sysctl.service",
        "systemd-sysctl[9]: Couldn't write '16' to 'kernel/sysrq', ignoring: No such file or directory",
        "systemd-sysctl[9]: Couldn't write '4k' to 'net/core/somaxconn': Invalid argument",
        "systemd[1]: systemd-sysctl.service: Main process exited, code=exited, status=1/FAILURE",
    )
    assert why == "the kernel refuses 4k for net/core/somaxconn (Invalid argument)"
    assert "net.core.somaxconn" in remedy
    assert "Restart" not in remedy
    assert "sysrq" not in remedy


def test_a_sysctl_unit_whose_journal_is_lost_is_not_told_to_restart() -> None:
    why, remedy = why_of("systemd-sysctl.service")
    assert "does not say which value" in why
    assert "SYS-001" in remedy


@pytest.mark.parametrize(
    ("unit", "said", "words"),
    [
        (
            "firewall.service",
            "it x-firewall-start[250]: iptables v1.8.11 (nf_tables): invalid portrange (min > max)",
            "iptables v1.8.11 (nf_tables): invalid portrange (min > max)",
        ),
        (
            "nftables.service",
            "it nft[9]: /nix/store/x-nftables-rules:12:5-9: Error: syntax error, unexpected accept",
            "/nix/store/x-nftables-rules:12:5-9: Error: syntax error, unexpected accept",
        ),
        ("firewall.service", "it x-firewall-start[250]: Try `iptables -h' for more", ""),
    ],
)
def test_a_filter_that_refuses_its_rules_is_quoted(unit: str, said: str, words: str) -> None:
    after = f"systemd[1]: {unit}: Main process exited, code=exited, status=2/INVALIDARGUMENT"
    why, remedy = why_of(unit, said, after)
    if words:
        assert why == f"its rules are refused: {words}"
        assert "networking.firewall" in remedy
    else:
        assert why == "it ended with exit status 2"
