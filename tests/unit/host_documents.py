"""A small host document, as ``nix/expressions/host-config.nix`` returns it."""

import copy
from typing import Any

import msgspec

from pytest_nixos.nix.command.refs import FlakeRef, HostRef
from pytest_nixos.nix.config.host_facts import HostConfig, parse_host_config

UNIT = "[Unit]\nDescription=x\n\n[Service]\nExecStart=/bin/x -a=b\nProtectSystem=strict\n"


def fact(value: Any) -> dict[str, Any]:
    return {"readable": True, "value": value}


UNREADABLE = {"readable": False, "value": None}

FACTS: dict[str, Any] = {
    "host_name": fact("web"),
    "system_name": fact("web"),
    "state_version": fact("24.05"),
    "release": fact("24.05"),
    "version": fact("24.05.1"),
    "is_container": fact(False),
    "firewall": fact(
        {
            "enable": True,
            "backend": "nftables",
            "allowedTCPPorts": [443, 80, 80],
            "allowedTCPPortRanges": [{"from": 6000, "to": 6010}],
            "allowedUDPPorts": [],
            "allowedUDPPortRanges": [],
            "interfaces": {
                "eth1": {
                    "allowedTCPPorts": [22],
                    "allowedTCPPortRanges": [],
                    "allowedUDPPorts": [53],
                    "allowedUDPPortRanges": [],
                }
            },
            "trustedInterfaces": ["lo"],
            "allowPing": True,
            "rejectPackets": False,
        }
    ),
    "sysctls": {"vm.swappiness": fact("10"), "kernel.x": fact(None), "kernel.bad": UNREADABLE},
    "zram": fact(
        {
            "algorithm": "zstd",
            "memoryPercent": 50,
            "memoryMax": None,
            "priority": 5,
            "swapDevices": 1,
        }
    ),
    "ollama": fact(None),
    "users": {
        "bob": fact(
            {
                "uid": None,
                "isNormalUser": True,
                "isSystemUser": False,
                "group": "users",
                "extraGroups": ["wheel"],
                "home": "/home/bob",
                "shell": None,
                "authorizedKeys": 2,
            }
        )
    },
    "groups": fact(["users"]),
    "kernel_params": fact(["loglevel=4"]),
    "file_systems": {
        "/": fact({"mountPoint": "/", "device": "/dev/a", "fsType": "ext4", "options": ["ro"]})
    },
    "swap_devices": fact(["/dev/b", None]),
    "luks_devices": fact(["crypt"]),
    "swraid": fact(None),
    "crypttab": fact(""),
    "tunnels": fact([]),
    "disko": fact({}),
    "luks": fact(
        {
            "crypt": {
                "name": "crypt",
                "device": "/dev/c",
                "keyFile": "",
                "header": "",
                "headless": False,
                "options": ["tpm2-device=auto"],
            }
        }
    ),
    "initrd_ssh": fact({"port": 2222, "bySystemd": False, "hostKeys": ["/etc/k"]}),
    "swap": fact([{"device": "/dev/b", "size": None, "randomlyEncrypted": False}]),
    "initrd_text": fact("zfs rollback -r tank/root@blank"),
    "warnings": fact(["w"]),
    "units": {
        "x.service": fact({"enabled": True, "text": UNIT, "wantedBy": ["multi-user.target"]})
    },
    "secrets": fact(
        {
            "sops": [
                {
                    "name": "api-token",
                    "key": "api-token",
                    "format": "yaml",
                    "path": "/run/secrets/api-token",
                    "owner": "bob",
                    "uid": "0",
                    "group": "",
                    "gid": "7",
                    "mode": "0440",
                    "sopsFile": "/nix/store/x-source/secrets.yaml",
                    "neededForUsers": False,
                    "restartUnits": ["x.service"],
                }
            ],
            "templates": [],
            "age": [],
            "uses": [{"option": "o", "kind": "password-hash", "path": "/run/secrets/pw"}],
        }
    ),
    "vm": fact({"memorySize": 1024, "cores": 1, "graphics": True, "restrictNetwork": False}),
}


def document() -> dict[str, Any]:
    facts = copy.deepcopy(FACTS)
    machine = {**copy.deepcopy(FACTS), "units": {}, "unitNames": ["x.service"]}
    return {
        "backend": "vm",
        "program": "bin/run-web-vm",
        "derivation": "/nix/store/d.drv",
        "output": "/nix/store/o",
        "toplevel": "/nix/store/t",
        "system": "x86_64-linux",
        "image": "",
        "facts": facts,
        "machineFacts": machine,
        "options": [],
        "machineOptions": [],
    }


def bare_host(name: str, **fields: object) -> HostConfig:
    """Return a host that declares nothing but its name, with `fields` of its config as given.

    What a backend reads of a host config is always there, whoever comes to read it.
    """
    declared = copy.deepcopy(FACTS)
    nothing: dict[str, Any] = {
        "sysctls": {},
        "users": {},
        "file_systems": {},
        "units": {},
        "luks": fact({}),
        "luks_devices": fact([]),
        "swap_devices": fact([]),
        "swap": fact([]),
        "initrd_ssh": fact(None),
        "initrd_text": fact(""),
        "kernel_params": fact([]),
        "warnings": fact([]),
        "zram": fact(None),
        "secrets": fact({"sops": [], "templates": [], "age": [], "uses": []}),
    }
    facts = {**declared, **nothing, "host_name": fact(name), "system_name": fact(name)}
    made = {**document(), "facts": facts, "machineFacts": {**facts, "unitNames": []}}
    host = parse_host_config(HostRef(FlakeRef("/f"), name), made, option_paths=())
    return msgspec.structs.replace(host, **{"vm": None, "changed": {}, **fields})
