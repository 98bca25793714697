"""What the evaluated config and the lock file say, on hosts and flakes that are in order."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from msgspec.structs import replace

from pytest_nixos.backend_name import BackendName
from pytest_nixos.findings import Outcome
from pytest_nixos.nix.config.declared import Declared
from pytest_nixos.observe.network.resolver import LinkResolver, Resolver
from pytest_nixos.observe.systemd.unit import UnitState
from pytest_nixos.standards.control.declared_facts import DECLARED_FACTS, forwards
from pytest_nixos.standards.control.seen import Seen, Unseen
from pytest_nixos.standards.judging.judge import Verdict, judge
from pytest_nixos.standards.kinds import KINDS
from pytest_nixos.standards.load import load_catalogue
from pytest_nixos.standards.sources.flake_files import FlakeFiles
from tests.unit.standards.samples import host_config, sample_unit

Json = Any
TODAY = dt.date(2026, 11, 28)
CATALOGUE = load_catalogue()


def fact(name: str, **options: Json) -> Json:
    found = DECLARED_FACTS[name].read(host_config(options=options["options"]), TODAY)
    return found.value if isinstance(found, Seen) else found.applicable


def on_config(control: str, options: dict[str, Json], *, release: str = "25.11") -> Verdict:
    """Judge in a VM, where only the config can say it."""
    host = replace(host_config(options=options), release=release)
    return judge(CATALOGUE.control(control), host, {}, BackendName.VM)


LUKS = {"boot.initrd.luks.devices": {"crypted": {"device": "/dev/sda2"}}}


@pytest.mark.parametrize(
    ("devices", "options", "expected"),
    [
        ([{"device": "/dev/sda3"}], {}, ["/dev/sda3"]),
        ([{"device": "/dev/sda3"}], LUKS, ["/dev/sda3"]),
        ([{"device": "/dev/sda3", "randomEncryption": {"enable": True}}], {}, []),
        ([{"device": "/dev/sda3", "encrypted": {"enable": True}}], {}, []),
        ([{"device": "/dev/mapper/crypted"}], LUKS, []),
        ([{"device": "/dev/mapper/other"}], LUKS, False),
        ([{"device": "/dev/zram0"}], {}, []),
        # Below a volume, or below the file system of a file, lies what no option names.
        ([{"device": "/dev/pool/swap"}], LUKS, False),
        ([{"device": "/dev/pool/swap"}], {}, ["/dev/pool/swap"]),
        ([{"device": "/var/swap"}], LUKS, False),
        ([], LUKS, False),
    ],
)
def test_swap_that_nothing_encrypts(devices: Json, options: Json, expected: Json) -> None:
    assert fact("plain-swap", options={**options, "swapDevices": devices}) == expected


@pytest.mark.parametrize(
    ("options", "seconds"),
    [
        ({}, 2048),
        ({"services.timesyncd.extraConfig": "PollIntervalMaxSec=60"}, 60),
        ({"services.timesyncd.extraConfig": "#PollIntervalMaxSec=60\n"}, 2048),
        (
            {
                "services.timesyncd.extraConfig": "PollIntervalMinSec=16\nPollIntervalMaxSec = 2min\n"
            },
            120,
        ),
        ({"services.timesyncd.settings.Time.PollIntervalMaxSec": 60}, 60),
        ({"services.timesyncd.settings.Time.PollIntervalMaxSec": "1h"}, 3600),
    ],
)
def test_time_poll_of_old_and_new_releases(options: Json, seconds: int) -> None:
    assert fact("time-poll", options={"services.timesyncd.enable": True, **options}) == seconds


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"services.ollama.acceleration": "cuda"}, "cuda"),
        ({"services.ollama.acceleration": False}, False),
        ({"services.ollama.acceleration": None}, False),  # the host leaves it to Ollama: n/a
        ({"services.ollama.package.meta.description": "Models, using ROCm for AMD GPU"}, "rocm"),
        ({"services.ollama.package.meta.description": "Models"}, False),
        ({}, False),
    ],
)
def test_acceleration_of_old_and_new_releases(options: Json, expected: Json) -> None:
    assert fact("ollama-acceleration", options=options) == expected


def test_the_store_is_read_only_by_the_option_that_the_release_has() -> None:
    old, new = "boot.readOnlyNixStore", "boot.nixStoreMountOpts"
    assert on_config_container({new: ["ro", "nodev"]}).outcome is Outcome.PASSED
    assert on_config_container({new: ["rw"]}).outcome is Outcome.FAILED
    assert on_config_container({old: True}).outcome is Outcome.PASSED
    assert on_config_container({old: False}).outcome is Outcome.FAILED


def on_config_container(options: dict[str, Json]) -> Verdict:
    return judge(
        CATALOGUE.control("FS-007"), host_config(options=options), {}, BackendName.CONTAINER
    )


def test_networkmanager_hosts_are_not_blamed_for_wireless() -> None:
    options = {"networking.wireless.enable": True, "networking.networkmanager.enable": True}
    assert on_config("NET-011", options).outcome is Outcome.NOT_APPLICABLE
    options["networking.networkmanager.enable"] = False
    assert on_config("NET-011", options).outcome is Outcome.FAILED


def test_true_is_a_legal_value_of_a_sysctl() -> None:
    control = CATALOGUE.control("SYSCTL-033")
    for declared, outcome in ((True, Outcome.PASSED), (1, Outcome.PASSED), (False, Outcome.FAILED)):
        host = host_config(options={"boot.kernel.sysctl": {"net.ipv4.tcp_syncookies": declared}})
        seen = {"sysctl": {"net.ipv4.tcp_syncookies": "1"}}
        assert judge(control, host, seen, BackendName.VM).outcome is outcome


@pytest.mark.parametrize(
    ("device", "outcome"),
    [
        ("/dev/vg/root", Outcome.PASSED),
        ("rpool", Outcome.PASSED),
        ("rpool/root", Outcome.PASSED),
        ("/dev/disk/by-uuid/1", Outcome.PASSED),
        ("/dev/sda1", Outcome.FAILED),
        ("/dev/nvme0n1p2", Outcome.FAILED),
        ("/dev/vda", Outcome.FAILED),
    ],
)
def test_names_of_disks_that_stay(device: str, outcome: Outcome) -> None:
    assert on_config("IO-008", {"fileSystems": {"/": {"device": device}}}).outcome is outcome


def test_a_host_without_root_file_system_has_none_to_name() -> None:
    for control in ("IO-008", "FS-017"):
        assert on_config(control, {"fileSystems": {}}).outcome is Outcome.NOT_APPLICABLE


@pytest.mark.parametrize(
    ("kind", "outcome"),
    [("ext4", Outcome.FAILED), ("tmpfs", Outcome.NOT_APPLICABLE), ("zfs", Outcome.NOT_APPLICABLE)],
)
def test_access_times_of_file_systems_that_keep_them(kind: str, outcome: Outcome) -> None:
    root = {"device": "x", "fsType": kind, "options": ["defaults"]}
    assert on_config("FS-017", {"fileSystems": {"/": root}}).outcome is outcome


def test_entries_are_those_of_the_loader_in_use() -> None:
    grub = {"boot.loader.grub.enable": True, "boot.loader.grub.configurationLimit": 100}
    systemd = {
        "boot.loader.systemd-boot.enable": True,
        "boot.loader.systemd-boot.configurationLimit": 5,
    }
    assert on_config("GEN-005", grub).outcome is Outcome.FAILED
    assert (
        "grub"
        not in on_config("GEN-005", {**grub, **systemd, "boot.loader.grub.enable": False}).reason
    )
    assert on_config("GEN-005", systemd).outcome is Outcome.PASSED
    assert on_config("GEN-005", {}).outcome is Outcome.NOT_APPLICABLE


def test_secure_boot_is_not_judged_by_a_vms_firmware() -> None:
    assert on_config("LUKS-006", {}).outcome is Outcome.NOT_APPLICABLE
    assert on_config("LUKS-006", {"boot.lanzaboote.enable": False}).outcome is Outcome.FAILED


@pytest.mark.parametrize(
    ("flake", "outcome"),
    [
        ("...", Outcome.FAILED),
        ("github:example/config", Outcome.FAILED),
        ("<flake>", Outcome.FAILED),
        ("github:me/config", Outcome.PASSED),
        ("git+ssh://git@host/config?ref=main", Outcome.PASSED),
        ("/etc/nixos#web", Outcome.PASSED),
    ],
)
def test_an_upgrade_comes_from_a_flake_that_can_be(flake: str, outcome: Outcome) -> None:
    options = {"system.autoUpgrade.enable": True, "system.autoUpgrade.flake": flake}
    assert on_config("UPD-002", options).outcome is outcome
    host = host_config(options=options)
    timer = UnitState(
        name="nixos-upgrade.timer", properties={"LoadState": "loaded", "ActiveState": "active"}
    )
    seen = {"unit-property": {timer.name: timer}}
    assert judge(CATALOGUE.control("UPD-001"), host, seen, BackendName.VM).outcome is outcome


def test_a_long_text_is_told_by_its_length() -> None:
    rules = "\n".join(f"# rule {number}" for number in range(100))
    reason = on_config("IO-001", {"services.udev.extraRules": rules}).reason
    assert "a text of 989 characters" in reason
    assert "rule 1" not in reason


def on_resolver(options: dict[str, Json], everywhere: str, release: str, **links: str) -> Verdict:
    """Judge DNSSEC where systemd-resolved runs."""

    def state(dnssec: str) -> LinkResolver:
        return LinkResolver(servers=("192.0.2.53",), dnssec=dnssec, dns_over_tls="false")

    options = {"services.resolved.enable": True, **options}
    host = replace(host_config(options=options), release=release)
    seen = Resolver(everywhere=state(everywhere), links={n: state(v) for n, v in links.items()})
    return judge(CATALOGUE.control("NET-019"), host, {"resolver": seen}, BackendName.VM)


def test_expectation_of_dnssec_names_each_value_once() -> None:
    verdict = on_resolver({"services.resolved.dnssec": "false"}, "false", "25.11")
    assert verdict.outcome is Outcome.FAILED
    assert verdict.reason.count("true") == 1
    new = {"services.resolved.settings.Resolve.DNSSEC": "true"}
    assert on_resolver(new, "true", "26.05").outcome is Outcome.PASSED


def test_a_link_that_validates_nothing_is_told_by_its_name() -> None:
    declared = {"services.resolved.dnssec": "true"}
    verdict = on_resolver(declared, "true", "25.11", eth0="allow-downgrade", wg0="false")
    assert verdict.outcome is Outcome.FAILED
    assert "link wg0" in verdict.reason and "eth0" not in verdict.reason
    # What is declared for a link counts, though this machine may lack it.
    lan = {"systemd.network.networks": {"10-lan": {"networkConfig": {"DNSSEC": False}}}}
    verdict = on_resolver({**declared, **lan}, "true", "25.11", eth0="true")
    assert "systemd.network.networks.10-lan: is false" in verdict.reason


@pytest.mark.parametrize("spelling", [True, "yes", "1", "on", "Y", "allow-downgrade"])
@pytest.mark.parametrize("place", ["settings", "a network"])
def test_every_spelling_of_systemd_validates(place: str, spelling: Json) -> None:
    setting = "services.resolved.settings.Resolve.DNSSEC"
    lan = {"systemd.network.networks": {"10-lan": {"networkConfig": {"DNSSEC": spelling}}}}
    declared = {setting: spelling} if place == "settings" else {setting: "true", **lan}
    verdict = on_resolver(declared, "true", "26.05")
    assert verdict.outcome is Outcome.PASSED, verdict.reason


@pytest.mark.parametrize("spelling", [False, "no", "0", "off", "F", "tru"])
@pytest.mark.parametrize("place", ["settings", "a network"])
def test_no_spelling_of_off_validates(place: str, spelling: Json) -> None:
    setting = "services.resolved.settings.Resolve.DNSSEC"
    lan = {"systemd.network.networks": {"10-lan": {"networkConfig": {"DNSSEC": spelling}}}}
    declared = {setting: spelling} if place == "settings" else {setting: "true", **lan}
    assert on_resolver(declared, "true", "26.05").outcome is Outcome.FAILED


def test_a_declared_resolver_that_does_not_run_is_no_pass() -> None:
    options = {"services.resolved.enable": True, "services.resolved.dnssec": "true"}
    seen = {"resolver": "systemd-resolved does not run"}
    control = CATALOGUE.control("NET-019")
    verdict = judge(control, host_config(options=options), seen, BackendName.VM)
    assert verdict.outcome is Outcome.FAILED


def test_forwarding_is_declared_or_turned_on_by_a_daemon() -> None:
    host = host_config()
    assert not forwards(host)
    assert not forwards(replace(host, sysctls={"net.ipv4.ip_forward": "0"}))
    assert forwards(replace(host, sysctls={"net.ipv6.conf.all.forwarding": "1"}))
    assert forwards(replace(host, units={"docker.service": sample_unit("docker.service")}))
    networks = {"10-lan": {"networkConfig": {"IPMasquerade": "ipv4"}}}
    path = "systemd.network.networks"
    assert forwards(
        replace(host, options={path: Declared(path=path, state="present", value=networks)})
    )


def lock(nodes: dict[str, Json], fact_name: str) -> Json:
    files = FlakeFiles(lock={"root": "root", "nodes": nodes}, lock_tracked=True, sources={})
    found = KINDS["flake-lock"].find((files, TODAY), {"fact": fact_name}, host_config())
    return found.value if isinstance(found, Seen) else found


def with_nixpkgs(locked: Json, original: Json) -> dict[str, Json]:
    return {"root": {"inputs": {"nixpkgs": "n"}}, "n": {"locked": locked, "original": original}}


@pytest.mark.parametrize(
    ("locked", "owner"),
    [
        ({"owner": "nixos"}, "NixOS"),
        ({"url": "https://github.com/NixOS/nixpkgs/archive/x.tar.gz"}, "NixOS"),
        ({"url": "git+ssh://git@github.com/nixos/nixpkgs"}, "NixOS"),
        ({"url": "https://api.flakehub.com/f/NixOS/nixpkgs/0.1"}, "NixOS"),
        ({"url": "https://releases.nixos.org/nixos/25.11/x.tar.xz"}, "NixOS"),
        ({"url": "https://channels.nixos.org/nixos-26.05/nixexprs.tar.xz"}, "NixOS"),
        ({"owner": "somebody"}, "somebody"),
        ({"url": "https://example.org/NixOS/nixpkgs"}, "https://example.org/NixOS/nixpkgs"),
    ],
)
def test_owner_of_nixpkgs_in_every_form(locked: Json, owner: str) -> None:
    assert lock(with_nixpkgs(locked, {}), "owner") == owner


def test_a_channels_url_names_its_branch() -> None:
    url = "https://channels.nixos.org/nixos-{}/nixexprs.tar.xz"
    assert lock(with_nixpkgs({}, {"url": url.format("26.05")}), "branch") == []
    assert lock(with_nixpkgs({}, {"url": url.format("24.05")}), "branch") != []


def test_nixpkgs_that_follows_another_input_is_found() -> None:
    nodes = {
        "root": {"inputs": {"nixpkgs": ["base", "nixpkgs"], "base": "base"}},
        "base": {"inputs": {"nixpkgs": "nixpkgs_3"}},
        "nixpkgs_3": {"locked": {"owner": "NixOS"}, "original": {"ref": "nixos-26.05"}},
    }
    assert lock(nodes, "branch") == []
    endless = {"root": {"inputs": {"nixpkgs": ["nixpkgs"]}}}
    assert isinstance(lock(endless, "branch"), Unseen)


def test_the_library_alone_is_no_second_nixpkgs_and_copies_name_who_brings_them() -> None:
    nodes = {
        "root": {"inputs": {"nixpkgs": "nixpkgs", "sops-nix": "sops-nix", "parts": "parts"}},
        "nixpkgs": {"locked": {"narHash": "a"}},
        "parts": {"inputs": {"nixpkgs-lib": "nixpkgs-lib"}},
        "nixpkgs-lib": {"locked": {"narHash": "b", "dir": "lib"}},
        "sops-nix": {"inputs": {"nixpkgs": "nixpkgs"}},
    }
    assert lock(nodes, "copies") == ["sops-nix, this flake: a"]
    nodes["sops-nix"] = {"inputs": {"nixpkgs": "nixpkgs_2"}}
    nodes["nixpkgs_2"] = {"locked": {"narHash": "c"}}
    assert lock(nodes, "copies") == ["sops-nix: c", "this flake: a"]
