"""Units that need the internet, told from those that are broken; messages as the programs word
them.
"""

from __future__ import annotations

import json

import pytest

from pytest_nixos.machine.boot.internet import (
    InternetNeed,
    UnitStart,
    internet_need,
    kind_of,
    last_words,
    last_words_command,
    mount_unit,
    remote_mounts,
)
from pytest_nixos.nix.config.declared import FileSystem
from pytest_nixos.nix.config.unit import Unit


def failed(*said: str, result: str = "exit-code", status: int = 1) -> UnitStart:
    return UnitStart(active="failed", result=result, status=status, said=said)


def hanging(*said: str) -> UnitStart:
    return UnitStart(active="activating", said=said)


OUTSIDE = {
    "curl: (6) Could not resolve host: api.example.org": "api.example.org",
    "curl: (28) Resolving timed out after 5000 milliseconds for https://example.org/x": "example.org",
    "curl: (28) Failed to connect to 192.0.2.7 port 443: Connection timed out": "192.0.2.7",
    "wget: unable to resolve host address \u2018mirror.example.net\u2019": "mirror.example.net",
    "ssh: Could not resolve hostname git.example.org: Temporary failure in name resolution": (
        "git.example.org"
    ),
    "fatal: unable to access 'https://github.com/a/b/': Could not resolve host: github.com": (
        "github.com"
    ),
    'Error: pulling image "x": Get "https://registry-1.docker.io/v2/": dial tcp: lookup '
    "registry-1.docker.io on 10.0.2.3:53: read udp: i/o timeout": "registry-1.docker.io",
    "error: Get https://acme-v02.api.letsencrypt.org/directory: dial tcp: lookup "
    "acme-v02.api.letsencrypt.org: no such host": "acme-v02.api.letsencrypt.org",
    "curl: (7) Failed to connect to api.example.org port 443: Connection refused": (
        "api.example.org"
    ),
    "dial tcp 10.233.0.1:443: connect: connection refused": "10.233.0.1",
    "dial tcp 198.51.100.4:443: connect: network is unreachable": "198.51.100.4",
    "requests.exceptions.ConnectionError: HTTPSConnectionPool(host='pypi.org', port=443): Max "
    "retries exceeded (Caused by NameResolutionError: Failed to resolve 'pypi.org' ([Errno -3] "
    "Temporary failure in name resolution))": "pypi.org",
    "Error: getaddrinfo EAI_AGAIN registry.npmjs.org": "registry.npmjs.org",
    "java.net.UnknownHostException: updates.example.com": "updates.example.com",
    'psql: could not translate host name "db.example.org" to address: Name or service not known': (
        "db.example.org"
    ),
    "mount.nfs: Failed to resolve server nas.lan: Name or service not known": "nas.lan",
    "mount.nfs: Network is unreachable for 192.168.1.9:/export on /mnt": "192.168.1.9",
    "warning: unable to download 'https://cache.nixos.org/nix-cache-info': Couldn't resolve host "
    "name (6)": "cache.nixos.org",
    "error sending request for url (https://crates.io/x): dns error: failed to lookup address "
    "information: Temporary failure in name resolution": "crates.io",
}


@pytest.mark.parametrize("line", OUTSIDE)
def test_a_service_that_reached_nobody_outside_needs_the_internet(line: str) -> None:
    need = internet_need("sync.service", failed("starting", line))

    assert need == InternetNeed(unit="sync.service", address=OUTSIDE[line], why=line)


@pytest.mark.parametrize(
    "line",
    [
        'could not translate host name "postgres" to address: Temporary failure in name resolution',
        "dial tcp: lookup redis on 10.0.2.3:53: no such host",
        "dial tcp 127.0.0.1:5432: connect: no route to host",
        "curl: (6) Could not resolve host: localhost.localhost",
        "Could not resolve host: web.example.org",
        "socket.gaierror: [Errno -2] Name or service not known",
        "connection timed out",
        "config.py: KeyError: 'host'",
        "",
    ],
)
def test_what_is_about_the_guest_itself_or_nobody_is_broken(line: str) -> None:
    assert internet_need("app.service", failed(line), own_names={"web", "web.example.org"}) is None


@pytest.mark.parametrize(
    "fault",
    [
        "open /etc/app.toml: permission denied",
        "listen tcp :8080: bind: address already in use",
        "/run/x: line 3: frobnicate: command not found",
        "panic: runtime error: index out of range",
        "KeyError: 'token'",
        "dial tcp 127.0.0.1:5432: connect: connection refused",
    ],
)
def test_a_fault_of_its_own_after_the_last_try_is_what_broke_it(fault: str) -> None:
    tried = "warning: Could not resolve host: updates.example.org, going on without"

    assert internet_need("app.service", failed(tried, fault)) is None
    # The other way round the first complaint did not stop it.
    assert internet_need("app.service", failed(fault, tried)) is not None


def test_what_is_said_again_of_the_same_address_is_no_other_fault() -> None:
    said = failed(
        "start: line 4: data.example.org: Temporary failure in name resolution",
        "start: line 4: /dev/tcp/data.example.org/443: permission denied",
    )
    need = internet_need("fetch.service", said)
    assert need is not None and need.address == "data.example.org"


@pytest.mark.parametrize(
    ("result", "status"),
    [
        ("exit-code", 203),
        ("exit-code", 226),
        ("signal", 9),
        ("core-dump", 11),
        ("oom-kill", 0),
        ("watchdog", 0),
        ("resources", 0),
        ("exec-condition", 1),
    ],
)
def test_how_it_ended_can_rule_the_network_out(result: str, status: int) -> None:
    said = "curl: (6) Could not resolve host: api.example.org"

    assert internet_need("acme-a.service", failed(said, result=result, status=status)) is None


@pytest.mark.parametrize(
    "unit",
    [
        "acme-example.org.service",
        "acme-order-renew-example.org.service",
        "podman-web.service",
        "docker-web.service",
        "ollama-model-loader.service",
        "tailscaled-autoconnect.service",
        "chrony-wait.service",
        "systemd-time-wait-sync.service",
        "restic-backups-home.service",
        "nixos-upgrade.service",
    ],
)
def test_a_kind_that_waits_for_the_internet_is_known_without_words(unit: str) -> None:
    assert kind_of(unit)
    need = internet_need(unit, hanging())
    assert need is not None and need.why == kind_of(unit)
    assert internet_need(unit, failed(result="timeout")) is not None
    # It ended by itself and says nothing: that may be anything.
    assert internet_need(unit, failed()) is None
    assert internet_need(unit, failed("unknown DNS provider 'cloudfare'")) is None
    # A message without a name is enough where the kind tells whom it asked.
    assert internet_need(unit, failed("connection timed out")) is not None


@pytest.mark.parametrize(
    "unit",
    [
        "acme-selfsigned-example.org.service",
        "acme-fixperms.service",
        "nginx.service",
        "sshd.service",
    ],
)
def test_other_kinds_that_hang_are_broken(unit: str) -> None:
    assert kind_of(unit) == ""
    assert internet_need(unit, hanging()) is None
    assert internet_need(unit, failed(result="timeout")) is None


def test_an_address_is_taken_from_the_settings_where_the_message_names_none() -> None:
    declared = Unit(
        name="fetch.service",
        enabled=True,
        settings={"Service": {"ExecStart": ("/bin/fetch https://data.example.org/x",)}},
        wanted_by=(),
    )
    said = failed("socket.gaierror: [Errno -3] Temporary failure in name resolution")

    need = internet_need("fetch.service", said, declared=declared)

    assert need is not None and need.address == "data.example.org"
    assert internet_need("fetch.service", said) is None


def test_a_mount_from_another_machine_is_known_by_its_file_system() -> None:
    found = remote_mounts(
        {
            name: FileSystem(mount_point=name, device=device, fs_type=kind, options=())
            for name, device, kind in (
                ("/", "/dev/vda", "ext4"),
                ("/a", "nas.lan:/export", "nfs"),
                ("/b", "//10.0.0.4/share", "cifs"),
                ("/c", "me@box.example.org:/srv", "fuse.sshfs"),
                ("/d", "https://dav.example.org/x", "davfs"),
            )
        }
    )

    assert found == {
        "/a": "nas.lan",
        "/b": "10.0.0.4",
        "/c": "box.example.org",
        "/d": "dav.example.org",
    }
    need = internet_need("a.mount", failed(result="timeout"), remote="nas.lan")
    assert need is not None and need.address == "nas.lan"
    broken = failed("mount: /a: bad option; you might need a /sbin/mount.nfs helper program.")
    assert internet_need("a.mount", broken, remote="nas.lan") is None


def test_only_the_last_start_counts_and_only_the_units_own_words() -> None:
    def entry(message: object, start: str, *, by_systemd: bool = False) -> str:
        own = {"INVOCATION_ID" if by_systemd else "_SYSTEMD_INVOCATION_ID": start}
        return json.dumps({"MESSAGE": message, "_PID": "1" if by_systemd else "77", **own})

    journal = "\n".join(
        [
            entry("Could not resolve host: a.example.org", "one"),
            entry("Failed with result 'exit-code'.", "one", by_systemd=True),
            entry("Starting again...", "two", by_systemd=True),
            entry("permission denied\n\nreally", "two"),
            entry([104, 105, 255], "two"),
            entry("Failed with result 'exit-code'.", "two", by_systemd=True),
            "{cut",
        ]
    )

    assert last_words(journal) == ("permission denied", "really", "hi\ufffd")
    assert last_words("") == ()
    assert last_words_command("a b.service").endswith("--unit='a b.service'")


@pytest.mark.parametrize(
    ("point", "unit"),
    [
        ("/", "-.mount"),
        ("/mnt/nas", "mnt-nas.mount"),
        ("/mnt/my-nas/", "mnt-my\\x2dnas.mount"),
        ("/.hidden", "\\x2ehidden.mount"),
    ],
)
def test_a_mount_has_the_unit_that_systemd_makes_of_it(point: str, unit: str) -> None:
    assert mount_unit(point) == unit
