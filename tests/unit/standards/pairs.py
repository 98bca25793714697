"""For controls whose value is computed: what makes it hold, and what breaks it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from typing import Any

from pytest_nixos.nix.config.declared import (
    FileSystem,
    Firewall,
    InterfacePorts,
    OllamaSettings,
    PortRange,
)
from pytest_nixos.observe.base import ProbeOutput
from pytest_nixos.observe.filesystems.mount import parse_mountinfo
from pytest_nixos.observe.firewall.probe import firewall
from pytest_nixos.observe.network.socket import InetSocket, Protocol, Sockets
from pytest_nixos.standards.sources.flake_files import FlakeFiles, StoreScan
from tests.unit.standards.samples import TODAY, sample_unit

Json = Any
#: Changes of the host config, options of it, and the observation of the control's kind.
Case = tuple[Mapping[str, Json], Mapping[str, Json], object]

STRICT = "*filter\n:INPUT DROP [0:0]\n:FORWARD DROP [0:0]\n-A INPUT -p tcp -m limit --limit 1/min -j ACCEPT\nCOMMIT\n"
OPEN = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\nCOMMIT\n"
RPFILTER = "*mangle\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -m rpfilter --invert -j DROP\nCOMMIT\n"
NFT = """{"nftables": [{"table": {"family": "inet", "name": "nixos-fw", "handle": 1}}, {"chain": {"family": "inet",
"table": "nixos-fw", "name": "input", "handle": 1, "type": "filter", "hook": "input", "prio": 0, "policy": "drop"}}]}"""


def _rules(save: str, *, nft: str = "") -> object:
    text = "=units\nactive\ninactive\n"
    if nft:
        text += f"=nft\n{nft}\n=nft-status 0\n"
    text += f"=iptables\n{save}\n=iptables-status 0\n=ip6tables\n{save}\n=ip6tables-status 0\n"
    return firewall().parse(ProbeOutput(stdout=text.encode(), exit_status=0))


def _lock(**nixpkgs: Json) -> FlakeFiles:
    modified = int(dt.datetime(2026, 11, 1, tzinfo=dt.UTC).timestamp())
    locked = {
        "owner": "NixOS",
        "rev": "1" * 40,
        "narHash": "sha256-a",
        "lastModified": modified,
        "type": "github",
    }
    node = {
        "locked": {**locked, **nixpkgs.pop("locked", {})},
        "original": {"ref": "nixos-26.05"},
        **nixpkgs,
    }
    lock = {"root": "root", "nodes": {"root": {"inputs": {"nixpkgs": "nixpkgs"}}, "nixpkgs": node}}
    return FlakeFiles(lock=lock, lock_tracked=True, sources={})


def _two_copies() -> FlakeFiles:
    flake = _lock()
    assert flake.lock is not None
    nodes = {**flake.lock["nodes"], "nixpkgs_2": {"locked": {"narHash": "sha256-b"}}}
    return FlakeFiles(lock={"root": "root", "nodes": nodes}, lock_tracked=True, sources={})


def _untracked() -> FlakeFiles:
    return FlakeFiles(lock=_lock().lock, lock_tracked=False, sources={})


def _source(path: str, text: str) -> FlakeFiles:
    return FlakeFiles(lock=None, lock_tracked=None, sources={path: text})


def _mounts(options: str) -> object:
    return parse_mountinfo([f"1 0 8:1 / /data {options} - ext4 /dev/x rw"])


def _opening(port: int) -> Firewall:
    return Firewall(
        enabled=True,
        backend="nftables",
        everywhere=InterfacePorts(tcp=(PortRange(first=port, last=port),)),
        interfaces={},
        trusted_interfaces=(),
        allow_ping=True,
        reject_packets=False,
    )


def _ollama(**changes: Json) -> OllamaSettings:
    settings: dict[str, Json] = {
        "host": "127.0.0.1", "port": 11434, "models": (), "open_firewall": False, "acceleration": None, "environment": {},
    }  # fmt: skip
    return OllamaSettings(**{**settings, **changes})


def _unit(**service: tuple[str, ...]) -> Mapping[str, Json]:
    return {"units": {"app.service": sample_unit("app.service", **service)}}


def _listening(address: str) -> object:
    socket = InetSocket(
        protocol=Protocol.TCP, address=address, port=8222, listening=True, dual_stack=False, peer=None, uid=0, inode=1,
    )  # fmt: skip
    return Sockets(inet=(socket,), unix=(), has_ipv6=True, owners={})


DATA = {
    "file_systems": {
        "/data": FileSystem(
            mount_point="/data", device="/dev/x", fs_type="ext4", options=("nodev",)
        )
    }
}
NETWORKS = {"systemd.network.networks": {"10-eth0": {"enable": True, "address": ["10.0.0.41/19"]}}}
SSHD = {"services.openssh.settings": {"PermitRootLogin": "no", "UsePAM": True}}
USERS = {"users.users": {"root": {"hashedPassword": "!"}}}
AUDIT = {"security.audit.rules": ["-w /etc/passwd -p wa -k identity"]}
CLEAN = StoreScan(paths=1, secrets=(), private_keys=())
DIRTY = StoreScan(
    paths=1, secrets=("/nix/store/x: age secret key",), private_keys=("/nix/store/x: private key",)
)

ROUTER = {"sysctls": {"net.ipv4.conf.all.forwarding": "1"}}

#: Options under which a fact of the config holds, and options under which it does not.
FACTS: Mapping[str, tuple[Mapping[str, Json], Mapping[str, Json]]] = {
    "boot-entries": (
        {"boot.loader.grub.enable": True, "boot.loader.grub.configurationLimit": 10},
        {
            "boot.loader.systemd-boot.enable": True,
            "boot.loader.systemd-boot.configurationLimit": None,
        },
    ),
    "time-poll": (
        {
            "services.timesyncd.enable": True,
            "services.timesyncd.settings.Time.PollIntervalMaxSec": "1min",
        },
        {
            "services.timesyncd.enable": True,
            "services.timesyncd.extraConfig": "PollIntervalMaxSec=1h\n",
        },
    ),
    "plain-swap": (
        {"swapDevices": [{"device": "/dev/mapper/swap"}], "boot.initrd.luks.devices": {"swap": {}}},
        {"swapDevices": [{"device": "/dev/sda2"}], "boot.initrd.luks.devices": {"root": {}}},
    ),
    "ollama-acceleration": (
        {
            "services.ollama.package.meta.description": "Get up and running with large language models"
        },
        {"services.ollama.acceleration": "cuda"},
    ),
}

PAIRS: Mapping[tuple[str, str], tuple[Case, Case]] = {
    ("socket", ""): (({}, {}, _listening("127.0.0.1")), ({}, {}, _listening("0.0.0.0"))),
    ("firewall", "backend"): (({}, {}, _rules(OPEN, nft=NFT)), ({}, {}, _rules(OPEN))),
    ("firewall", "refuses-by-default"): (({}, {}, _rules(STRICT)), ({}, {}, _rules(OPEN))),
    ("firewall", "forward"): ((ROUTER, {}, _rules(STRICT)), (ROUTER, {}, _rules(OPEN))),
    ("firewall", "reverse-path"): (({}, {}, _rules(RPFILTER)), ({}, {}, _rules(OPEN))),
    ("firewall", "limits"): (({}, {}, _rules(STRICT)), ({}, {}, _rules(OPEN))),
    ("mount-declared", ""): ((DATA, {}, _mounts("rw,nodev")), (DATA, {}, _mounts("rw"))),
    ("address", ""): (({}, NETWORKS, ("10.0.0.41/19",)), ({}, NETWORKS, ("10.0.2.15/24",))),
    ("sshd-declared", ""): (
        ({}, SSHD, {"settings": {"permitrootlogin": "no", "usepam": "yes"}}),
        ({}, SSHD, {"settings": {"permitrootlogin": "yes", "usepam": "yes"}}),
    ),
    ("declaration", "literal-passwords"): (
        ({}, USERS, TODAY),
        ({}, {"users.users": {"alice": {"initialPassword": "x"}}}, TODAY),
    ),
    ("declaration", "inline-secrets"): (
        ({}, {}, TODAY),
        ({}, {"services.nats.settings.authorization.password": "hunter2"}, TODAY),
    ),
    ("declaration", "secret-files-in-store"): (
        (_unit(LoadCredential=("a:/run/secrets/a",)), {}, TODAY),
        (_unit(LoadCredential=("a:/nix/store/x-a",)), {}, TODAY),
    ),
    ("declaration", "secret-environment"): (
        (_unit(Environment=("A=b",)), {}, TODAY),
        (_unit(Environment=('"API_TOKEN=abc"',)), {}, TODAY),
    ),
    ("declaration", "secrets-without-backend"): (
        (_unit(EnvironmentFile=("/run/secrets/a",)), {"sops.secrets": {"a": {}}}, TODAY),
        (_unit(EnvironmentFile=("/run/secrets/a",)), {}, TODAY),
    ),
    ("declaration", "secrets-without-credentials"): (
        (
            _unit(EnvironmentFile=("/run/secrets/a",), LoadCredential=("a:/run/secrets/a",)),
            {},
            TODAY,
        ),
        (_unit(EnvironmentFile=("/run/secrets/a",)), {}, TODAY),
    ),
    ("declaration", "state-version"): (({}, {}, TODAY), ({"state_version": "26.05"}, {}, TODAY)),
    ("declaration", "derivation"): (({}, {}, TODAY), ({"derivation": ""}, {}, TODAY)),
    ("declaration", "warnings"): (({}, {}, TODAY), ({"warnings": ("renamed",)}, {}, TODAY)),
    ("declaration", "ollama-host"): (
        ({"ollama": _ollama()}, {}, TODAY),
        ({"ollama": _ollama(host="0.0.0.0")}, {}, TODAY),
    ),
    ("declaration", "ollama-opened"): (
        ({"ollama": _ollama()}, {}, TODAY),
        ({"ollama": _ollama(), "firewall": _opening(11434)}, {}, TODAY),
    ),
    ("declaration", "release"): (
        ({"release": "26.05"}, {}, TODAY),
        ({"release": "24.05"}, {}, TODAY),
    ),
    ("flake-lock", "tracked"): (({}, {}, (_lock(), TODAY)), ({}, {}, (_untracked(), TODAY))),
    ("flake-lock", "branch"): (
        ({}, {}, (_lock(), TODAY)),
        ({}, {}, (_lock(original={"ref": "nixos-24.05"}), TODAY)),
    ),
    ("flake-lock", "age-days"): (
        ({}, {}, (_lock(), TODAY)),
        ({}, {}, (_lock(locked={"lastModified": 1_700_000_000}), TODAY)),
    ),
    ("flake-lock", "owner"): (
        ({}, {}, (_lock(), TODAY)),
        ({}, {}, (_lock(locked={"owner": "somebody"}), TODAY)),
    ),
    ("flake-lock", "copies"): (({}, {}, (_lock(), TODAY)), ({}, {}, (_two_copies(), TODAY))),
    ("source-scan", "impure"): (
        ({}, {}, _source("a.nix", "{ }")),
        ({}, {}, _source("a.nix", 'x = builtins.getEnv "HOME";')),
    ),
    ("source-scan", "unhashed-fetchers"): (
        ({}, {}, _source("a.nix", 'fetchurl { url = "u"; hash = "h"; }')),
        ({}, {}, _source("a.nix", 'fetchurl { url = "u"; }')),
    ),
    ("source-scan", "loose-scripts"): (
        ({}, {}, _source("a.nix", 'ExecStart = "${job}/bin/job";')),
        ({}, {}, _source("a.nix", 'ExecStart = "${./job.sh}";')),
    ),
    ("source-scan", "unencrypted-secrets"): (
        ({}, {}, _source("secrets/a.yaml", "a: ENC[x]\nsops:\n  mac: ENC[y]\n")),
        ({}, {}, _source("secrets/a.yaml", "a: hunter2\n")),
    ),
    ("source-scan", "plain-secrets"): (
        ({}, {}, _source("a.nix", 'password = "changeme"; passwordFile = "/run/secrets/a";')),
        ({}, {}, _source("a.nix", 'password = "tr0ub4dor-and-three";')),
    ),
    ("source-scan", "tool-versions"): (
        ({}, {}, _source("a.nix", "{ }")),
        ({}, {}, _source(".tool-versions", "erlang 27")),
    ),
    ("store-scan", "secrets"): (({}, {}, CLEAN), ({}, {}, DIRTY)),
    ("store-scan", "private-keys"): (({}, {}, CLEAN), ({}, {}, DIRTY)),
}


def audit_case(p: Mapping[str, Json], *, good: bool) -> Case:
    """Return rules that cover what a control wants, or none."""
    rules = [f"-w {path} -p wa -k x" for path in p.get("watches", ())]
    options = AUDIT if p.get("declared") else {}
    rules += list(AUDIT["security.audit.rules"]) if p.get("declared") else []
    tests = "".join(f" -F {test}" for test in p.get("filters", ()))
    rules += [
        f"-a always,exit -F arch={architecture} -S {','.join(p['syscalls'])}{tests} -F key=x"
        for architecture in ("b64", "b32")
        if "syscalls" in p
    ]
    return (
        {},
        options,
        {"status": {"enabled": "1"}, "rules": rules if good else ["-w /elsewhere -p wa"]},
    )


def open_ports_case(excluded: list[int], *, good: bool) -> Case:
    """Return a host that opens an innocent port, or one of the excluded ones."""
    return {"firewall": _opening(443 if good else excluded[0])}, {}, TODAY


PairMaker = Callable[..., Case]
