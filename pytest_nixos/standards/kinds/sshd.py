"""Kinds about sshd: a setting in force, and declared settings that are not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.observe.base import Probe
from pytest_nixos.observe.fact import fact_probe
from pytest_nixos.observe.network.sshd import CASES, SSHD_FACTS
from pytest_nixos.standards.control.seen import Seen, Sight, Unseen
from pytest_nixos.standards.kinds.facts import chosen_fact
from pytest_nixos.standards.kinds.kind import NEEDED, Kind, Parameters

__all__ = ["KINDS"]

Json = Any


def _sshd_probe(_: Sequence[Parameters], __: HostConfig) -> Probe[Any]:
    return fact_probe("sshd", SSHD_FACTS, ["settings"])


def _sshd(values: Mapping[str, Json], parameters: Parameters, _: HostConfig) -> Sight:
    key = str(parameters["key"]).lower()
    sight = chosen_fact(values, "settings", (key,))
    whole = chosen_fact(values, "settings", ())
    if (
        isinstance(sight, Unseen)
        or not isinstance(whole, Seen)
        or not isinstance(whole.value, Mapping)
    ):
        return sight
    # A Match block may give others what root does not get from here.
    cases = {case: got[key] for case, got in whole.value.get(CASES, {}).items() if key in got}
    return Seen(sight.value, cases=cases)


def _sshd_declared_probe(_: Sequence[Parameters], host: HostConfig) -> Probe[Any]:
    # The same question under the same name is asked once: sshd is started for it.
    return _sshd_probe((), host)


def _sshd_declared(values: Mapping[str, Json], _: Parameters, host: HostConfig) -> Sight:
    running = chosen_fact(values, "settings", ())
    declared = host.option("services.openssh.settings").value
    if isinstance(running, Unseen):
        return running
    if not isinstance(declared, Mapping):
        return Unseen("the host declares no services.openssh.settings", applicable=False)
    return Seen(sorted(_sshd_deviations(running.value, declared)))


#: Names that sshd prints under a newer one.
_SSHD_RENAMED = {"challengeresponseauthentication": "kbdinteractiveauthentication"}


def _sshd_deviations(running: Mapping[str, Json], declared: Mapping[str, Json]) -> list[str]:
    found = []
    for key, wanted in declared.items():
        if wanted is None:
            continue
        name = _SSHD_RENAMED.get(key.lower(), key.lower())
        actual = running.get(name)
        if actual is None or _sshd_text(actual) != _sshd_text(wanted):
            found.append(f"{key} is {_sshd_text(actual)!r}, declared {_sshd_text(wanted)!r}")
    return found


def _sshd_text(value: Json) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ",".join(str(item) for item in value)
    text = "none" if value is None else ",".join(str(value).split()).lower()
    # sshd prints the old name of the two that mean the same.
    return "without-password" if text == "prohibit-password" else text


KINDS = (
    Kind(
        name="sshd",
        reads="settings in force in sshd (`sshd -T`)",
        probe=_sshd_probe,
        find=_sshd,
        parameters={"key": NEEDED},
    ),
    Kind(
        name="sshd-declared",
        reads="declared sshd settings that are not in force",
        probe=_sshd_declared_probe,
        find=_sshd_declared,
        options=lambda _: ("services.openssh.settings",),
    ),
)
