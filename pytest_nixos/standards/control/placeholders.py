"""Texts of the catalogue with option values in them:
``http://{services.qdrant.settings.service.host}:6333``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.standards.control.seen import Seen, Sight, Unseen

__all__ = ["filled", "opened", "placeholder_options"]

_PLACEHOLDER = re.compile(r"\{([^{}|]+)(?:\|([^{}]*))?\}")
_SAFE = re.compile(r"[A-Za-z0-9._:\[\]-]*")
#: An address that means "all" is asked at the loopback address.
_LOOPBACK = {
    "0.0.0.0": "127.0.0.1",  # noqa: S104 - asked for, not bound
    "": "127.0.0.1",
    "::": "[::1]",
    "[::]": "[::1]",
    "*": "127.0.0.1",
}


def filled(template: str, host: HostConfig) -> Sight:
    """Put option values into `template`; text after ``|`` stands in where an option is not set."""
    result, position = "", 0
    for match in _PLACEHOLDER.finditer(template):
        declared = host.option(match[1])
        value = declared.value if declared.present and declared.value is not None else match[2]
        if value is None:
            return Unseen(f"the host does not declare {match[1]}", applicable=False)
        text = _LOOPBACK.get(str(value), str(value))
        if not _SAFE.fullmatch(text):
            return Unseen(f"{match[1]} is {text!r}, which is no address or port")
        result += template[position : match.start()] + text
        position = match.end()
    return Seen(result + template[position:])


def placeholder_options(template: str) -> tuple[str, ...]:
    """Return the option paths in `template`."""
    return tuple(match[1] for match in _PLACEHOLDER.finditer(template))


def opened(by: Sequence[str], host: HostConfig) -> bool:
    """Whether the host sets one of the options that make a server listen, or may do so; nobody waits
    for one that it does not open.

    :param by: option paths; where none is named the server always listens.
    """
    declared = [host.option(path) for path in by]
    return not by or any(d.state == "unreadable" or d.value is not None for d in declared)
