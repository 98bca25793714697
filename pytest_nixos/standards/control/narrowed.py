"""A remedy for the narrower subject that decides: the interface whose own value beats that of all."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pytest_nixos.observe.network.interface_sysctl import InterfaceParameter
from pytest_nixos.standards.control.seen import EVERYBODY, EVERYBODY_ELSE, INTERFACE

__all__ = ["narrowed"]

_SYSCTL = re.compile(r'boot\.kernel\.sysctl\."([^"]+)"')
_INTERFACE = re.compile(INTERFACE + r"([A-Za-z0-9@._:-]{1,64})")


def narrowed(text: str, observed: Any) -> str:
    """Return a remedy about all interfaces as one about those that were found wrong.

    :param text: the catalogue's text.
    :param observed: what was found wrong, as the judge tells it: a mapping that names the cases,
        whether everybody else is right or not.
    """
    if not isinstance(observed, Mapping) or not {EVERYBODY, EVERYBODY_ELSE} & observed.keys():
        return text
    found = [match[1] for case in observed if (match := _INTERFACE.fullmatch(str(case)))]
    lines = []
    for line in text.splitlines():
        match = _SYSCTL.search(line)
        parameter = None if match is None else InterfaceParameter.of_all(match[1])
        if match is None or parameter is None or not found:
            lines.append(line)
            continue
        if EVERYBODY in observed:
            lines.append(line)
        lines += [line.replace(match[1], parameter.key(name)) for name in found]
    return "\n".join(lines)
