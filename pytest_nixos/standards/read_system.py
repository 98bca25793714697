"""Readers of the system: kernel, mounts, modules, packet filter, sockets, addresses, programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pytest_nixos.nix.host_config import HostConfig
from pytest_nixos.observe.base import Probe
from pytest_nixos.observe.firewall import FirewallState, firewall
from pytest_nixos.observe.kernel import kernel_parameters, modules
from pytest_nixos.observe.mount import Mount, MountTable, mounts
from pytest_nixos.observe.runtime import addresses, programs
from pytest_nixos.observe.socket import Protocol, Sockets, sockets
from pytest_nixos.observe.sysctl import normalise_sysctl, sysctls
from pytest_nixos.standards.declared_facts import forwards
from pytest_nixos.standards.sight import Reader, Seen, Sight, Unseen
from pytest_nixos.standards.templates import filled

__all__ = ["SYSTEM_READERS"]

Json = Any
Parameters = Mapping[str, Json]


def _sysctl_keys(parameters: Parameters) -> list[str]:
    return list(parameters.get("keys", ())) or [str(parameters["key"])]


def _sysctl_probe(wanted: Sequence[Parameters], _: HostConfig) -> Probe[Any]:
    return sysctls([key for p in wanted for key in _sysctl_keys(p)], name="catalogue-sysctl")


def _sysctl(values: Mapping[str, str | None], parameters: Parameters, _: HostConfig) -> Sight:
    keys = _sysctl_keys(parameters)
    if missing := [key for key in keys if key not in values]:
        return Unseen(f"the machine gave no answer about {', '.join(missing)}")
    found = {key: None if (v := values[key]) is None else normalise_sysctl(v) for key in keys}
    return Seen(found if "keys" in parameters else found[keys[0]])


def _kernel_param(words: Sequence[str] | None, parameters: Parameters, _: HostConfig) -> Sight:
    if words is None:
        return Unseen("the kernel command line could not be read")
    name = str(parameters["name"])
    if name == "*":
        return Seen(list(words))
    # As in the kernel, the last one of a name counts; a word without a value is present and empty.
    values = [w.partition("=")[2] for w in words if w.partition("=")[0] == name]
    return Seen(values[-1] if values else None)


def _mount(table: MountTable, parameters: Parameters, _: HostConfig) -> Sight:
    if not table.mounts:
        return Unseen("the mounts could not be read")
    mount = table.at(str(parameters["target"]))
    if mount is None:
        return Seen(None)
    match parameters.get("field", "options"):
        case "fs-type":
            return Seen(mount.filesystem)
        case "source":
            return Seen(mount.source)
        case _:
            return Seen(_options(mount))


def _options(mount: Mount) -> list[str]:
    """Return the options of the mount and of its file system; a read-only mount of a writable one is read-only."""
    options = [*mount.options, *(o for o in mount.super_options if o not in mount.options)]
    return [o for o in options if o != "rw" or not mount.is_read_only]


#: Options that only mean something to mount(8), fstab(5) or systemd, and never show on a mount.
_INVISIBLE = (
    "x-",
    "_netdev",
    "nofail",
    "defaults",
    "auto",
    "noauto",
    "user",
    "bind",
    "loop",
    "mode=",
)


def _mount_declared(table: MountTable, _: Parameters, host: HostConfig) -> Sight:
    if not table.mounts:
        return Unseen("the mounts could not be read")
    wrong = []
    for target, declared in host.file_systems.items():
        mount = table.at(target)
        if mount is None:
            if "noauto" not in declared.options and declared.fs_type != "none":
                wrong.append(f"{target} is not mounted")
            continue
        if declared.fs_type not in ("auto", "none", mount.filesystem):
            wrong.append(f"{target} is {mount.filesystem}, declared {declared.fs_type}")
        lacking = [
            option
            for option in declared.options
            if not option.startswith(_INVISIBLE)
            and "=" not in option
            and option not in _options(mount)
        ]
        if lacking:
            wrong.append(f"{target} lacks {', '.join(lacking)}")
    return Seen(wrong)


def _firewall(state: FirewallState, parameters: Parameters, host: HostConfig) -> Sight:
    fact = parameters["fact"]
    if fact == "forward" and not forwards(host):
        return Unseen("the host declares nothing that forwards packets", applicable=False)
    if fact == "active":
        return Seen(state.is_active)
    if not state.is_known:
        return Unseen("no tool on the machine could show the packet filter's rules")
    rules = state.ruleset
    match fact:
        case "backend":
            nft = any(name.startswith("inet ") for name in rules.tables)
            return Seen("nftables" if nft else "iptables" if rules.tables else "none")
        case "refuses-by-default":
            return Seen(all(rules.refuses_by_default(family=f) for f in ("ip", "ip6")))
        case "reverse-path":
            return Seen(rules.has_reverse_path_filter)
        case "forward":
            forward = [
                chain.policy.value if chain.policy is not None else None
                for chains in rules.tables.values()
                for chain in chains.values()
                if chain.hook == "forward"
            ]
            return Seen(forward)
        case _:
            words = ("limit rate", "hashlimit", "-m limit", "--match limit", "-m recent", "f2b-")
            return Seen([line for line in state.text.splitlines() if any(w in line for w in words)])


def _socket(found: Sockets, parameters: Parameters, host: HostConfig) -> Sight:
    port = filled(str(parameters["port"]), host)
    if isinstance(port, Unseen):
        return port
    if not str(port.value).isdecimal():
        return Unseen(f"the host declares no port number, but {port.value!r}")
    return Seen(list(found.addresses(Protocol.TCP, int(port.value))))


def _module_probe(wanted: Sequence[Parameters], _: HostConfig) -> Probe[Any]:
    return modules([name for p in wanted for name in p["names"]])


def _module(states: Mapping[str, str] | None, parameters: Parameters, _: HostConfig) -> Sight:
    if states is None:
        return Unseen("the machine has no modprobe to ask")
    if missing := [name for name in parameters["names"] if name not in states]:
        return Unseen(f"the machine gave no answer about {', '.join(missing)}")
    return Seen({name: states[name] for name in parameters["names"]})


def _program_probe(wanted: Sequence[Parameters], _: HostConfig) -> Probe[Any]:
    return programs([name for p in wanted for name in p["names"]])


def _program(found: Sequence[str] | None, parameters: Parameters, _: HostConfig) -> Sight:
    if found is None:
        return Unseen("the search for programs did not come to its end")
    return Seen([name for name in parameters["names"] if name in found])


def _address(found: Sequence[str] | None, _: Parameters, host: HostConfig) -> Sight:
    declared = _declared_addresses(host.option("systemd.network.networks").value)
    if not declared:
        return Unseen("the host declares no static address", applicable=False)
    if found is None:
        return Unseen("the addresses could not be read")
    return Seen([address for address in declared if address not in found])


def _declared_addresses(networks: Json) -> list[str]:
    found: list[str] = []
    for network in networks.values() if isinstance(networks, Mapping) else ():
        if not isinstance(network, Mapping) or not network.get("enable", True):
            continue
        values = network.get("address") or []
        config = network.get("networkConfig")
        more = config.get("Address") if isinstance(config, Mapping) else None
        found += [*values, *(more if isinstance(more, list) else [more] if more else [])]
    return list(dict.fromkeys(str(address) for address in found))


SYSTEM_READERS: Mapping[str, Reader] = {
    "sysctl": Reader(probe=_sysctl_probe, pick=_sysctl),
    "kernel-param": Reader(probe=lambda _, __: kernel_parameters(), pick=_kernel_param),
    "mount": Reader(probe=lambda _, __: mounts(), pick=_mount),
    "mount-declared": Reader(
        probe=lambda _, __: mounts(name="mount-declared"), pick=_mount_declared
    ),
    "firewall": Reader(probe=lambda _, __: firewall(), pick=_firewall),
    "socket": Reader(probe=lambda _, __: sockets(), pick=_socket),
    "module": Reader(probe=_module_probe, pick=_module),
    "program": Reader(probe=_program_probe, pick=_program),
    "address": Reader(probe=lambda _, __: addresses(), pick=_address),
}
