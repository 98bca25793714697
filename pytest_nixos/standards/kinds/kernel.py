"""Kinds about the kernel: its parameters, its command line, its modules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.observe.base import Probe
from pytest_nixos.observe.kernel import kernel_parameters, modules, normalise_sysctl, sysctls
from pytest_nixos.observe.network.interface_sysctl import InterfaceParameter
from pytest_nixos.standards.control.seen import Seen, Sight, Unseen
from pytest_nixos.standards.kinds.kind import (
    NEEDED,
    NEEDED_TEXTS,
    TEXT,
    TEXTS,
    Kind,
    Parameters,
)

__all__ = ["KINDS"]


def _sysctl_keys(parameters: Parameters) -> list[str]:
    return list(parameters.get("keys", ())) or [str(parameters["key"])]


def _sysctl_probe(wanted: Sequence[Parameters], _: HostConfig) -> Probe[Any]:
    keys = [key for p in wanted for key in _sysctl_keys(p)]
    of_interfaces = [p for key in keys if (p := InterfaceParameter.of_all(key)) is not None]
    # Whether an interface forwards decides what its redirects mean.
    families = dict.fromkeys(p.family for p in of_interfaces)
    forwarding = [InterfaceParameter(family=f, name="forwarding") for f in families]
    globs = dict.fromkeys(p.every for p in (*of_interfaces, *forwarding))
    return sysctls([*keys, *globs], name="catalogue-sysctl")


def _sysctl(values: Mapping[str, str | None], parameters: Parameters, host: HostConfig) -> Sight:
    keys = _sysctl_keys(parameters)
    if missing := [key for key in keys if key not in values]:
        return Unseen(f"the machine gave no answer about {', '.join(missing)}")
    found = {key: None if (v := values[key]) is None else normalise_sysctl(v) for key in keys}
    if "keys" in parameters:
        return Seen(found)
    return Seen(found[keys[0]], cases=_interface_cases(keys[0], values, host))


def _interface_cases(
    key: str, values: Mapping[str, str | None], host: HostConfig
) -> Mapping[str, str]:
    """Return what is in force on each interface, where `key` is about all of them."""
    parameter = InterfaceParameter.of_all(key)
    if parameter is None:
        return {}
    seen = {name: normalise_sysctl(value) for name, value in values.items() if value is not None}
    found = parameter.cases(seen, host.sysctls)
    return {f"interface {name}": value for name, value in found.items()}


def _kernel_param(words: Sequence[str] | None, parameters: Parameters, _: HostConfig) -> Sight:
    if words is None:
        return Unseen("the kernel command line could not be read")
    name = str(parameters["name"])
    if name == "*":
        return Seen(list(words))
    # As in the kernel, the last one of a name counts; a word without a value is present and empty.
    values = [w.partition("=")[2] for w in words if w.partition("=")[0] == name]
    return Seen(values[-1] if values else None)


def _module_probe(wanted: Sequence[Parameters], _: HostConfig) -> Probe[Any]:
    return modules([name for p in wanted for name in p["names"]])


def _module(states: Mapping[str, str] | None, parameters: Parameters, _: HostConfig) -> Sight:
    if states is None:
        return Unseen("the machine has no modprobe to ask")
    if missing := [name for name in parameters["names"] if name not in states]:
        return Unseen(f"the machine gave no answer about {', '.join(missing)}")
    return Seen({name: states[name] for name in parameters["names"]})


KINDS = (
    Kind(
        name="sysctl",
        reads="kernel parameters below /proc/sys",
        probe=_sysctl_probe,
        find=_sysctl,
        parameters={"key": TEXT, "keys": TEXTS},
        one_of=("key", "keys"),
    ),
    Kind(
        name="kernel-param",
        reads="the kernel command line; `*` stands for all its words",
        probe=lambda _, __: kernel_parameters(),
        find=_kernel_param,
        parameters={"name": NEEDED},
    ),
    Kind(
        name="module",
        reads="whether kernel modules are loaded, loadable, blocked or absent",
        probe=_module_probe,
        find=_module,
        parameters={"names": NEEDED_TEXTS},
    ),
)
