"""Readers of facts: by name from a machine, from the evaluated config, from a flake's files."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

from pytest_nixos.nix.host_facts import HostConfig
from pytest_nixos.observe.base import Probe
from pytest_nixos.observe.daemons import AUDIT_FACTS, SSHD_FACTS
from pytest_nixos.observe.fact import Fact, Lacking, fact_probe
from pytest_nixos.standards.audit_rules import missing_rules
from pytest_nixos.standards.config_facts import CONFIG_FACTS
from pytest_nixos.standards.declaration import select
from pytest_nixos.standards.flake_facts import LOCK_FACTS, SOURCE_FACTS, STORE_FACTS
from pytest_nixos.standards.flake_files import FlakeFiles, StoreScan
from pytest_nixos.standards.kinds import FACT_KINDS
from pytest_nixos.standards.sight import Reader, Seen, Sight, Unseen

__all__ = ["FACT_READERS"]

Json = Any
Parameters = Mapping[str, Json]


def _fact_reader(kind: str, facts: Mapping[str, Fact]) -> Reader:
    def probe(wanted: Sequence[Parameters], _: HostConfig) -> Probe[Any]:
        return fact_probe(kind, facts, [str(p["fact"]) for p in wanted])

    def pick(values: Mapping[str, Json], parameters: Parameters, _: HostConfig) -> Sight:
        return _chosen(values, str(parameters["fact"]), parameters.get("select", ()))

    return Reader(probe=probe, pick=pick)


def _chosen(values: Mapping[str, Json], fact: str, keys: Sequence[str]) -> Sight:
    if fact not in values:
        return Unseen(f"the machine gave no answer about {fact}")
    value = values[fact]
    if isinstance(value, Lacking):
        return Unseen(value.reason, applicable=False)
    return Seen(select(value, tuple(keys)))


def _sshd_probe(_: Sequence[Parameters], __: HostConfig) -> Probe[Any]:
    return fact_probe("sshd", SSHD_FACTS, ["settings"])


def _sshd(values: Mapping[str, Json], parameters: Parameters, _: HostConfig) -> Sight:
    return _chosen(values, "settings", (str(parameters["key"]).lower(),))


def _sshd_declared_probe(_: Sequence[Parameters], host: HostConfig) -> Probe[Any]:
    # The same question under the same name is asked once: sshd is started for it.
    return _sshd_probe((), host)


def _sshd_declared(values: Mapping[str, Json], _: Parameters, host: HostConfig) -> Sight:
    running = _chosen(values, "settings", ())
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


def _audit_probe(_: Sequence[Parameters], __: HostConfig) -> Probe[Any]:
    return fact_probe("audit", AUDIT_FACTS, list(AUDIT_FACTS))


def _audit(values: Mapping[str, Json], parameters: Parameters, host: HostConfig) -> Sight:
    status = _chosen(values, "status", ())
    if isinstance(status, Unseen):
        return (
            status
            if parameters.get("declared")
            else Unseen(f"{status.reason}, so nothing is audited")
        )
    if "status" in parameters:
        return Seen(status.value.get(str(parameters["status"])))
    rules = _chosen(values, "rules", ())
    if isinstance(rules, Unseen):
        return rules
    if parameters.get("declared"):
        wanted = host.option("security.audit.rules").value
        wanted = wanted if isinstance(wanted, list) else []
        if not wanted:
            return Unseen("the host declares no audit rules", applicable=False)
        return Seen(missing_rules(rules.value, declared=[str(rule) for rule in wanted]))
    return Seen(
        missing_rules(
            rules.value,
            syscalls=parameters.get("syscalls", ()),
            filters=parameters.get("filters", ()),
            watches=parameters.get("watches", ()),
        )
    )


def _declaration(today: dt.date, parameters: Parameters, host: HostConfig) -> Sight:
    return CONFIG_FACTS[str(parameters["fact"])].read(host, today)


def _flake_lock(found: tuple[FlakeFiles, dt.date], parameters: Parameters, _: HostConfig) -> Sight:
    return LOCK_FACTS[str(parameters["fact"])].read(*found)


def _source_scan(flake: FlakeFiles, parameters: Parameters, _: HostConfig) -> Sight:
    if not flake.sources:
        return Unseen("the flake's source holds no text file that could be read")
    find = SOURCE_FACTS[str(parameters["fact"])].find
    return Seen([hit for path, text in flake.sources.items() for hit in find(path, text)])


def _store_scan(scan: StoreScan, parameters: Parameters, _: HostConfig) -> Sight:
    if scan.paths == 0:
        return Unseen("the closure holds no store path that could be read")
    return Seen(STORE_FACTS[str(parameters["fact"])].read(scan))


FACT_READERS: Mapping[str, Reader] = {
    **{kind: _fact_reader(kind, facts) for kind, facts in FACT_KINDS.items()},
    "sshd": Reader(probe=_sshd_probe, pick=_sshd),
    "sshd-declared": Reader(probe=_sshd_declared_probe, pick=_sshd_declared),
    "audit": Reader(probe=_audit_probe, pick=_audit),
    "declaration": Reader(probe=None, pick=_declaration),
    "flake-lock": Reader(probe=None, pick=_flake_lock),
    "source-scan": Reader(probe=None, pick=_source_scan),
    "store-scan": Reader(probe=None, pick=_store_scan),
}
