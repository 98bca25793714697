"""The host's JSON document from ``nix/expressions/host-config.nix``, parsed once into a :class:`HostConfig`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from pytest_nixos.nix.host_config import (
    Declared,
    FileSystem,
    Firewall,
    HostConfig,
    InterfacePorts,
    OllamaSettings,
    Unit,
    User,
    VmSettings,
    Zram,
)
from pytest_nixos.nix.refs import HostRef, nix_quote

__all__ = ["parse_host_config", "parse_unit_file"]

Json = Any
T = TypeVar("T")

_NO_FIREWALL = {
    "enable": False,
    "backend": "iptables",
    "allowedTCPPorts": [],
    "allowedTCPPortRanges": [],
    "allowedUDPPorts": [],
    "allowedUDPPortRanges": [],
    "interfaces": {},
    "trustedInterfaces": [],
    "allowPing": True,
    "rejectPackets": False,
}
_DEFAULT_OLLAMA_PORT = 11434
_NO_SNAPSHOT: Json = {"refusal": "only a VM's state can be saved", "changed": {}}

# Where a fact stands in the module system, for `changed` and `unreadable`.
_PATHS = {
    "hostName": "networking.hostName",
    "systemName": "system.name",
    "stateVersion": "system.stateVersion",
    "release": "system.nixos.release",
    "version": "system.nixos.version",
    "isContainer": "boot.isContainer",
    "firewall": "networking.firewall",
    "sysctls": "boot.kernel.sysctl",
    "zram": "zramSwap",
    "ollama": "services.ollama",
    "users": "users.users",
    "groups": "users.groups",
    "kernelParams": "boot.kernelParams",
    "fileSystems": "fileSystems",
    "swapDevices": "swapDevices",
    "warnings": "warnings",
    "units": "systemd.units",
    "vm": "virtualisation.vmVariant.virtualisation",
}
_COMPARED = [
    "hostName",
    "stateVersion",
    "isContainer",
    "firewall",
    "sysctls",
    "zram",
    "ollama",
    "users",
    "groups",
    "kernelParams",
    "fileSystems",
    "swapDevices",
]
_BY_NAME = ("sysctls", "users", "fileSystems", "units")


def parse_host_config(
    ref: HostRef, document: Mapping[str, Json], *, option_paths: Sequence[str]
) -> HostConfig:
    """Read one host's document.

    :param document: what ``nix/expressions/host-config.nix`` returns.
    :param option_paths: the paths that were asked for, in the document's order.
    """
    facts = document["facts"]
    firewall = _fact(facts, "firewall") or _NO_FIREWALL
    zram, ollama, vm = _fact(facts, "zram"), _fact(facts, "ollama"), _fact(facts, "vm")
    declared = _declared(option_paths, document["options"])
    return HostConfig(
        ref=ref,
        backend=document["backend"],
        host_name=_fact(facts, "hostName") or "",
        system_name=_fact(facts, "systemName") or "",
        system=document["system"],
        state_version=_fact(facts, "stateVersion"),
        release=_fact(facts, "release") or "",
        version=_fact(facts, "version") or "",
        is_container=bool(_fact(facts, "isContainer")),
        firewall=_firewall(firewall),
        sysctls={
            k: v for k, v in _named(facts, "sysctls", lambda _, v: v).items() if v is not None
        },
        zram=_zram(zram) if zram else None,
        units=_named(facts, "units", _unit),
        users=_named(facts, "users", _user),
        groups=tuple(_fact(facts, "groups") or ()),
        ollama=_ollama(ollama) if ollama else None,
        kernel_params=tuple(_fact(facts, "kernelParams") or ()),
        file_systems=_named(facts, "fileSystems", _file_system),
        swap_devices=tuple(d for d in _fact(facts, "swapDevices") or () if d is not None),
        warnings=tuple(_fact(facts, "warnings") or ()),
        vm=_vm(vm) if vm and vm["memorySize"] is not None else None,
        options=declared,
        changed={
            **_changed_facts(facts, document["machineFacts"]),
            **_changed_units(facts, document["machineFacts"]),
            **_changed_options(declared, _declared(option_paths, document["machineOptions"])),
            **_changed_by_image(document.get("snapshot")),
        },
        unreadable=_unreadable(facts),
        derivation=document["derivation"],
        output=document["output"],
        toplevel=document["toplevel"],
        program=document["program"],
        snapshot_refusal=(document.get("snapshot") or _NO_SNAPSHOT)["refusal"],
    )


def parse_unit_file(text: str) -> dict[str, dict[str, tuple[str, ...]]]:
    """Read a unit file into section, key and values in order, as systemd.syntax(7) says.

    An empty assignment is kept as ``""``: for most list settings it resets what stands above it.
    """
    sections: dict[str, dict[str, tuple[str, ...]]] = {}
    section: dict[str, tuple[str, ...]] = {}
    for line in _joined_lines(text):
        if line.startswith("[") and line.endswith("]"):
            section = sections.setdefault(line[1:-1], {})
            continue
        key, assigned, value = line.partition("=")
        if assigned:
            section[key.strip()] = (*section.get(key.strip(), ()), value.strip())
    return sections


def _joined_lines(text: str) -> list[str]:
    lines: list[str] = []
    continued = False
    for raw in text.splitlines():
        line = raw.strip()
        if line.startswith(("#", ";")) or (not line and not continued):
            continue
        if continued:
            lines[-1] = f"{lines[-1]} {line}"
        else:
            lines.append(line)
        continued = line.endswith("\\")
        if continued:
            lines[-1] = lines[-1].removesuffix("\\").rstrip()
    return lines


def _fact(facts: Mapping[str, Json], name: str) -> Json:
    fact = facts.get(name)
    return fact["value"] if fact and fact["readable"] else None


def _named(facts: Mapping[str, Json], name: str, parse: Callable[[str, Json], T]) -> dict[str, T]:
    entries = facts.get(name) or {}
    return {key: parse(key, fact["value"]) for key, fact in entries.items() if fact["readable"]}


def _unreadable(facts: Mapping[str, Json]) -> tuple[str, ...]:
    paths = []
    for name, path in _PATHS.items():
        if name not in facts:
            paths.append(path)
        elif name in _BY_NAME:
            paths += [_sub(path, key) for key, fact in facts[name].items() if not fact["readable"]]
        elif not facts[name]["readable"]:
            paths.append(path)
    return tuple(sorted(paths))


def _declared(paths: Sequence[str], answers: Sequence[Json]) -> dict[str, Declared]:
    return {
        path: Declared(path=path, state=answer["state"], value=answer.get("value"))
        for path, answer in zip(paths, answers, strict=True)
    }


def _firewall(data: Mapping[str, Json]) -> Firewall:
    return Firewall(
        enabled=data["enable"],
        backend=data["backend"],
        everywhere=InterfacePorts.parse(data),
        interfaces={k: InterfacePorts.parse(v) for k, v in data["interfaces"].items()},
        trusted_interfaces=tuple(data["trustedInterfaces"]),
        allow_ping=data["allowPing"],
        reject_packets=data["rejectPackets"],
    )


def _zram(data: Mapping[str, Json]) -> Zram:
    return Zram(
        algorithm=data["algorithm"],
        memory_percent=data["memoryPercent"],
        memory_max_bytes=data["memoryMax"],
        priority=data["priority"],
        device_count=data["swapDevices"],
    )


def _unit(name: str, data: Mapping[str, Json]) -> Unit:
    return Unit(
        name=name,
        enabled=data["enabled"],
        settings=parse_unit_file(data["text"]),
        wanted_by=tuple(data["wantedBy"]),
    )


def _user(name: str, data: Mapping[str, Json]) -> User:
    return User(
        name=name,
        uid=data["uid"],
        is_normal=data["isNormalUser"],
        is_system=data["isSystemUser"],
        group=data["group"],
        extra_groups=tuple(data["extraGroups"]),
        home=data["home"],
        shell=data["shell"],
        authorized_keys=data["authorizedKeys"],
    )


def _file_system(_: str, data: Mapping[str, Json]) -> FileSystem:
    return FileSystem(
        mount_point=data["mountPoint"],
        device=data["device"],
        fs_type=data["fsType"],
        options=tuple(data["options"]),
    )


def _ollama(data: Mapping[str, Json]) -> OllamaSettings:
    # Up to 24.05 one option holds both: services.ollama.listenAddress = "127.0.0.1:11434".
    address, _, port = (data["listenAddress"] or "").rpartition(":")
    return OllamaSettings(
        host=(data["host"] or address or "127.0.0.1").strip("[]"),
        port=data["port"] or (int(port) if port.isdecimal() else _DEFAULT_OLLAMA_PORT),
        models=tuple(data["loadModels"]),
        open_firewall=data["openFirewall"],
        acceleration=data["acceleration"],
        environment=data["environmentVariables"],
    )


def _vm(data: Mapping[str, Json]) -> VmSettings:
    return VmSettings(
        memory_mib=data["memorySize"],
        cores=data["cores"],
        graphics=bool(data["graphics"]),
        restrict_network=data["restrictNetwork"],
    )


def _changed_facts(
    facts: Mapping[str, Json], machine: Mapping[str, Json]
) -> dict[str, tuple[Json, Json]]:
    changed: dict[str, tuple[Json, Json]] = {}
    for name in _COMPARED:
        if name not in facts:
            continue
        if name in _BY_NAME:
            ours = {key: fact["value"] for key, fact in facts[name].items()}
            theirs = {key: fact["value"] for key, fact in machine[name].items()}
            changed |= _differing(_PATHS[name], ours, theirs)
        else:
            changed |= _differing_values(_PATHS[name], _fact(facts, name), _fact(machine, name))
    return changed


def _changed_units(
    facts: Mapping[str, Json], machine: Mapping[str, Json]
) -> dict[str, tuple[Json, Json]]:
    if "units" not in facts:
        return {}
    path = _PATHS["units"]
    ours, theirs = _named(facts, "units", _unit), _named(machine, "units", _unit)
    changed: dict[str, tuple[Json, Json]] = {
        _sub(path, name): (_unit_value(ours[name]), None)
        for name in sorted(ours.keys() - set(machine["unitNames"]))
    }
    for name, unit in theirs.items():
        before, after = _unit_value(ours[name]) if name in ours else None, _unit_value(unit)
        changed |= _differing_values(_sub(path, name), before, after)
    return changed


def _unit_value(unit: Unit) -> Json:
    return {
        "enabled": unit.enabled,
        "wantedBy": list(unit.wanted_by),
        **{
            section: {key: list(values) for key, values in settings.items()}
            for section, settings in unit.settings.items()
        },
    }


def _changed_options(
    ours: Mapping[str, Declared], theirs: Mapping[str, Declared]
) -> dict[str, tuple[Json, Json]]:
    return {
        path: (declared.value, theirs[path].value)
        for path, declared in ours.items()
        if (declared.state, declared.value) != (theirs[path].state, theirs[path].value)
    }


def _changed_by_image(snapshot: Mapping[str, Json] | None) -> dict[str, tuple[Json, Json]]:
    changed = (snapshot or _NO_SNAPSHOT)["changed"]
    return {path: (before, after) for path, (before, after) in changed.items()}


def _differing_values(path: str, ours: Json, theirs: Json) -> dict[str, tuple[Json, Json]]:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return _differing(path, ours, theirs)
    return {path: (ours, theirs)} if ours != theirs else {}


def _differing(
    path: str, ours: Mapping[str, Json], theirs: Mapping[str, Json]
) -> dict[str, tuple[Json, Json]]:
    changed: dict[str, tuple[Json, Json]] = {}
    for key in sorted(ours.keys() | theirs.keys()):
        changed |= _differing_values(_sub(path, key), ours.get(key), theirs.get(key))
    return changed


def _sub(path: str, name: str) -> str:
    plain = name.replace("_", "a").replace("-", "a").isalnum() and not name[0].isdigit()
    return f"{path}.{name if plain else nix_quote(name)}"
