"""Kinds of observation that need no code per control: what each is asked with."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pytest_nixos.observe.account_facts import ACCOUNT_FACTS
from pytest_nixos.observe.daemons import JOURNAL_FACTS, NIX_FACTS
from pytest_nixos.observe.fact import Fact
from pytest_nixos.observe.nix_state import GENERATION_FACTS
from pytest_nixos.observe.podman import PODMAN_FACTS
from pytest_nixos.observe.resources import CLOCK_FACTS, PROCESSOR_FACTS
from pytest_nixos.observe.scan import SCAN_FACTS
from pytest_nixos.observe.storage import STORAGE_FACTS
from pytest_nixos.standards.config_facts import CONFIG_FACTS
from pytest_nixos.standards.flake_facts import LOCK_FACTS, SOURCE_FACTS, STORE_FACTS

__all__ = ["FACT_KINDS", "KINDS", "Kind", "Parameter", "template_options"]

Json = Any
Parameters = Mapping[str, Json]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One parameter of a kind.

    :param type: ``text``, ``number``, ``flag`` or ``texts`` (a list).
    :param choices: the only values allowed, if there are any.
    """

    type: str = "text"
    required: bool = False
    choices: tuple[str, ...] = ()

    def problem(self, value: Json) -> str | None:
        """Say what is wrong with `value`, if anything is."""
        if not _TYPES[self.type](value):
            return f"is {value!r}, expected {self.type}"
        if self.choices and value not in self.choices:
            return f"is {value!r}, expected one of {', '.join(self.choices)}"
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of observation.

    :param reads: what it reads, in words, for the documentation.
    :param host_side: whether it is read on the host machine, from the flake, the closure or the evaluated config,
        so that a verdict counts as judged on the config.
    :param one_of: parameters of which exactly one has to be given.
    :param options: option paths that it reads, from its parameters.
    """

    name: str
    reads: str
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    one_of: tuple[str, ...] = ()
    host_side: bool = False
    options: Callable[[Parameters], tuple[str, ...]] = lambda _: ()

    @property
    def signature(self) -> str:
        """Its parameters in words."""
        parts = [
            f"{name} ({parameter.type}{'' if parameter.required else ', optional'})"
            for name, parameter in self.parameters.items()
        ]
        return ", ".join(parts) or "no parameters"

    def problem(self, given: Parameters) -> str | None:
        """Say what is wrong with the parameters `given`, if anything is."""
        for name, value in given.items():
            if name not in self.parameters:
                return f"{name}: kind {self.name} has no such parameter"
            if (wrong := self.parameters[name].problem(value)) is not None:
                return f"{name}: {wrong}"
        missing = [n for n, p in self.parameters.items() if p.required and n not in given]
        if missing:
            return f"lacks {', '.join(missing)}"
        if self.one_of and sum(name in given for name in self.one_of) != 1:
            return f"needs exactly one of {', '.join(self.one_of)}"
        return None


def template_options(template: str) -> tuple[str, ...]:
    """Return the option paths in a text such as ``http://{services.qdrant.host|127.0.0.1}:6333``."""
    return tuple(path for path, _, _ in _placeholders(template))


def _placeholders(template: str) -> list[tuple[str, str, str]]:
    return re.findall(r"\{([^{}|]+)(\|([^{}]*))?\}", template)


def _is_texts(value: Json) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) and item for item in value)


_TYPES: Mapping[str, Callable[[Json], bool]] = {
    "text": lambda value: isinstance(value, str) and bool(value),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "flag": lambda value: isinstance(value, bool),
    "texts": _is_texts,
}

_TEXT = Parameter()
_TEXTS = Parameter(type="texts")
_NEEDED = Parameter(required=True)
_SERVICES = Parameter(choices=("application",))

#: Kinds whose observations are facts by name, read by one probe each.
FACT_KINDS: Mapping[str, Mapping[str, Fact]] = {
    "account": ACCOUNT_FACTS,
    "clock": CLOCK_FACTS,
    "generation": GENERATION_FACTS,
    "journal": JOURNAL_FACTS,
    "nix": NIX_FACTS,
    "podman": PODMAN_FACTS,
    "processor": PROCESSOR_FACTS,
    "scan": SCAN_FACTS,
    "storage": STORAGE_FACTS,
}

_FACT_READS = {
    "account": "users, groups and passwords, never a hash",
    "clock": "the clock and its time service",
    "generation": "what is booted, current, kept and installed by hand",
    "journal": "journald's settings and the journal of this boot",
    "nix": "the settings of Nix",
    "podman": "running OCI containers",
    "processor": "the processor",
    "scan": "the mutable file systems",
    "storage": "disks, swap and encryption",
}


def _fact_kind(name: str, facts: Mapping[str, Fact]) -> Kind:
    return Kind(
        name=name,
        reads=_FACT_READS[name],
        parameters={
            "fact": Parameter(required=True, choices=tuple(facts)),
            "select": _TEXTS,
        },
    )


def _http_options(parameters: Parameters) -> tuple[str, ...]:
    return template_options(str(parameters.get("url", "")))


def _config_options(parameters: Parameters) -> tuple[str, ...]:
    return CONFIG_FACTS[str(parameters["fact"])].options


_KINDS = (
    Kind(
        name="sysctl",
        reads="kernel parameters below /proc/sys",
        parameters={"key": _TEXT, "keys": _TEXTS},
        one_of=("key", "keys"),
    ),
    Kind(
        name="kernel-param",
        reads="the kernel command line; `*` stands for all its words",
        parameters={"name": _NEEDED},
    ),
    Kind(
        name="unit-property",
        reads="properties of units (`systemctl show`)",
        parameters={
            "unit": _TEXT,
            "units": _TEXTS,
            "services": _SERVICES,
            "property": _TEXT,
            "properties": _TEXTS,
            "missing": Parameter(choices=("skip", "report")),
            "where": _TEXT,
        },
        one_of=("unit", "units", "services"),
    ),
    Kind(
        name="unit-exposure",
        reads="exposure of services (`systemd-analyze security`)",
        parameters={"units": _TEXTS, "services": _SERVICES},
        one_of=("units", "services"),
    ),
    Kind(
        name="mount",
        reads="mounted file systems",
        parameters={
            "target": _NEEDED,
            "field": Parameter(choices=("options", "fs-type", "source")),
        },
    ),
    Kind(
        name="mount-declared",
        reads="`fileSystems` entries that are not mounted as declared",
        options=lambda _: ("fileSystems",),
    ),
    Kind(
        name="file",
        reads="mode, owner, presence and content of files",
        parameters={
            "path": _TEXT,
            "paths": _TEXTS,
            "field": Parameter(
                required=True,
                choices=("state", "content", "settings", "found", "match", "days-left"),
            ),
            "pattern": _TEXT,
            "default": _TEXT,
        },
        one_of=("path", "paths"),
    ),
    Kind(name="sshd", reads="settings in force in sshd (`sshd -T`)", parameters={"key": _NEEDED}),
    Kind(
        name="sshd-declared",
        reads="declared sshd settings that are not in force",
        options=lambda _: ("services.openssh.settings",),
    ),
    Kind(
        name="firewall",
        reads="the packet filter in force",
        parameters={
            "fact": Parameter(
                required=True,
                choices=(
                    "active",
                    "backend",
                    "refuses-by-default",
                    "reverse-path",
                    "limits",
                    "forward",
                ),
            )
        },
        options=lambda p: ("systemd.network.networks",) if p.get("fact") == "forward" else (),
    ),
    Kind(
        name="socket",
        reads="addresses on which a TCP port is listened on; an option may name the port",
        parameters={"port": _NEEDED},
        options=lambda parameters: template_options(str(parameters.get("port", ""))),
    ),
    Kind(
        name="module",
        reads="whether kernel modules are loaded, loadable, blocked or absent",
        parameters={"names": Parameter(type="texts", required=True)},
    ),
    Kind(
        name="process",
        reads="main processes of units: environment variables by name, command line, OOM score",
        parameters={
            "units": Parameter(type="texts", required=True),
            "field": Parameter(
                required=True, choices=("environment", "command-line", "oom-score-adj")
            ),
            "variables": _TEXTS,
        },
    ),
    Kind(
        name="program",
        reads="which of some programs are on PATH",
        parameters={"names": Parameter(type="texts", required=True)},
    ),
    Kind(
        name="address",
        reads="declared addresses that no interface has",
        options=lambda _: ("systemd.network.networks",),
    ),
    Kind(
        name="http",
        reads="HTTP answers, asked from inside the machine",
        parameters={
            "url": _NEEDED,
            "field": Parameter(choices=("status", "json", "body", "headers")),
            "select": _TEXTS,
        },
        options=_http_options,
    ),
    Kind(
        name="audit",
        reads="audit rules and state (`auditctl`)",
        parameters={
            "status": _TEXT,
            "syscalls": _TEXTS,
            "filters": _TEXTS,
            "watches": _TEXTS,
            "declared": Parameter(type="flag"),
        },
        options=lambda p: ("security.audit.rules",) if p.get("declared") else (),
    ),
    Kind(
        name="declaration",
        reads="facts that follow from the evaluated config",
        parameters={"fact": Parameter(required=True, choices=tuple(CONFIG_FACTS))},
        host_side=True,
        options=_config_options,
    ),
    Kind(
        name="flake-lock",
        reads="the flake's lock file",
        parameters={"fact": Parameter(required=True, choices=tuple(LOCK_FACTS))},
        host_side=True,
    ),
    Kind(
        name="source-scan",
        reads="the flake's source, as text",
        parameters={"fact": Parameter(required=True, choices=tuple(SOURCE_FACTS))},
        host_side=True,
    ),
    Kind(
        name="store-scan",
        reads="the files of the system's closure, as text",
        parameters={"fact": Parameter(required=True, choices=tuple(STORE_FACTS))},
        host_side=True,
    ),
    *(_fact_kind(name, facts) for name, facts in FACT_KINDS.items()),
)

KINDS: Mapping[str, Kind] = {kind.name: kind for kind in _KINDS}
