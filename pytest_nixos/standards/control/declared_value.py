"""What a host declares for a control: an option of its evaluated config, and a selection inside
it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.nix.config.unit import switch_word
from pytest_nixos.standards.control.declared_facts import DECLARED_FACTS
from pytest_nixos.standards.control.model import DeclaredSpec
from pytest_nixos.standards.control.seen import Seen, Sight, Unseen

__all__ = ["declared_value", "redacted", "select", "value_in_machine"]

Json = Any
#: Password fields that hold no secret: locked, or empty.
HARMLESS = frozenset({"", "!", "*", "!!", "!*"})
_OF_RESOLVED = "services.resolved.settings.Resolve."


def declared_value(host: HostConfig, spec: DeclaredSpec) -> Sight:
    """Return the declared value; ``Seen(None)`` where the option exists and this key is not set."""
    if spec.fact is not None:
        return DECLARED_FACTS[spec.fact].read(host, dt.datetime.now(tz=dt.UTC).date())
    found = [host.option(path) for path in spec.options]
    known = [declared for declared in found if declared.state != "absent"]
    if not known:
        names = " or ".join(spec.options)
        return Unseen(f"NixOS {host.release} has no option {names}", applicable=False)
    readable = {d.path: _as_written(d.path, d.value) for d in known if d.present}
    if not readable:
        return Unseen(f"the option {known[0].path} cannot be evaluated")
    return Seen(_combined(spec, readable))


def value_in_machine(host: HostConfig, spec: DeclaredSpec) -> Seen:
    """Return the value that the started machine was evaluated with, where it differs."""
    if spec.fact is not None:
        return Seen(None)
    values = {}
    for path in spec.options:
        if path in host.changed:
            values[path] = host.changed[path][1]
        elif host.option(path).state != "absent":
            values[path] = host.option(path).value
    return Seen(_combined(spec, values))


def _combined(spec: DeclaredSpec, values: Mapping[str, Json]) -> Json:
    if len(spec.options) == 1:
        return select(values.get(spec.options[0]), spec.select)
    return {path: select(value, spec.select) for path, value in values.items()}


def _as_written(path: str, value: Json) -> Json:
    """Return what the option's value means to who reads it: to the kernel, for which nixpkgs writes
    ``true`` as 1 and ``false`` as 0, and to systemd-resolved, which knows switches in many spellings.
    """
    if path.startswith(_OF_RESOLVED) and isinstance(value, str | int):
        return switch_word(value)
    if path != "boot.kernel.sysctl" or not isinstance(value, Mapping):
        return value
    return {key: int(v) if isinstance(v, bool) else v for key, v in value.items()}


def select(value: Json, keys: Sequence[str]) -> Json:
    """Follow `keys` into `value`; ``*`` stands for every member and yields a mapping (or a
    list).
    """
    if not keys:
        return value
    head, rest = keys[0], keys[1:]
    if head == "*":
        if isinstance(value, Mapping):
            return {name: select(inner, rest) for name, inner in value.items()}
        if isinstance(value, list | tuple):
            return [select(inner, rest) for inner in value]
        return None
    return select(value[head], rest) if isinstance(value, Mapping) and head in value else None


def redacted(value: Json) -> Json:
    """Return `value` with every text that could be a secret replaced by ``(set)``."""
    if isinstance(value, Mapping):
        return {name: redacted(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [redacted(inner) for inner in value]
    if isinstance(value, str) and value not in HARMLESS:
        return "(set)"
    return value
