"""Kinds about sshd: a setting in force, and declared settings that are not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.observe.base import Probe
from pytest_nixos.observe.fact import fact_probe
from pytest_nixos.observe.network.sshd import CASES, SSHD_FACTS
from pytest_nixos.observe.network.sshd_value import is_in_force, sshd_text
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
    extra = host.option("services.openssh.extraConfig").value
    unheard = _unheard(declared, extra if isinstance(extra, str) else "")
    return Seen(sorted([*_sshd_deviations(running.value, declared), *unheard]))


#: Keywords that may stand more than once, sshd_config(5), or that NixOS writes into extraConfig itself beside
#: settings of its users (sshd.nix).
_OFTEN = frozenset(
    {"acceptenv", "allowgroups", "allowusers", "authorizedkeysfile", "denygroups", "denyusers"}
    | {"hostcertificate", "hostkey", "include", "listenaddress", "permitlisten", "permitopen"}
    | {"port", "setenv", "subsystem"}
)
_OF_NIXOS = frozenset(
    {"addressfamily", "authorizedkeyscommand", "authorizedkeyscommanduser", "banner"}
    | {"xauthlocation"}
)


def _unheard(settings: Mapping[str, Json], extra: str) -> list[str]:
    """Return the lines of ``extraConfig`` that count for nothing: of a keyword the first counts,
    and what ``settings`` says comes first.
    """
    first = {
        key.lower(): sshd_text(value)
        for key, value in settings.items()
        if value is not None and key.lower() not in _OF_NIXOS
    }
    declared = {key.lower(): key for key in settings}
    found = []
    for line in extra.split("\n"):
        key, _, value = line.strip().replace("=", " ", 1).partition(" ")
        if key.lower() == "match":
            break
        value = value.strip().strip('"')
        if not key or key.startswith("#") or key.lower() in _OFTEN or not value:
            continue
        heard = first.setdefault(key.lower(), sshd_text(value))
        if heard != sshd_text(value):
            found.append(
                f"{declared.get(key.lower(), key)} {value} in services.openssh.extraConfig counts for nothing, since {heard!r} comes first"
            )
    return found


#: Names that sshd prints under a newer one.
_SSHD_RENAMED = {"challengeresponseauthentication": "kbdinteractiveauthentication"}


def _sshd_deviations(running: Mapping[str, Json], declared: Mapping[str, Json]) -> list[str]:
    found = []
    for key, wanted in declared.items():
        if wanted is None:
            continue
        name = _SSHD_RENAMED.get(key.lower(), key.lower())
        actual = running.get(name)
        if not is_in_force(name, wanted, actual):
            found.append(f"{key} is {sshd_text(actual)!r}, declared {sshd_text(wanted)!r}")
    return found


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
        options=lambda _: ("services.openssh.settings", "services.openssh.extraConfig"),
    ),
)
