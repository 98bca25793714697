"""Readers of files: their state, their content, settings and certificates in them."""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pytest_nixos.nix.host_config import HostConfig
from pytest_nixos.observe.base import Probe
from pytest_nixos.observe.paths import PathState, path_states
from pytest_nixos.standards.sight import Reader, Seen, Sight, Unseen

__all__ = ["TEXT_READERS", "certificate_end", "file_settings"]

Json = Any
Parameters = Mapping[str, Json]

_SETTING = re.compile(r"^\s*([A-Za-z_][\w.-]*)\s*(?:=|\s)\s*(.*?)\s*$")
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", re.DOTALL)
# DER: the validity is a sequence of two times, UTCTime (0x17, 13 bytes) or GeneralizedTime (0x18, 15 bytes).
_VALIDITY = re.compile(
    rb"(?:\x17\x0d(\d{12})Z|\x18\x0f(\d{14})Z)(?:\x17\x0d(\d{12})Z|\x18\x0f(\d{14})Z)"
)


def file_settings(text: str) -> dict[str, str]:
    """Read ``key = value`` and ``key value`` lines; comments and sections are left out, the last of a key counts."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        if line.lstrip().startswith(("#", ";", "[")):
            continue
        if (match := _SETTING.match(line)) is not None:
            found[match[1]] = match[2].strip('"')
    return found


def certificate_end(text: str) -> dt.datetime | None:
    """Return when the first certificate of a PEM text ends."""
    block = _CERTIFICATE.search(text)
    try:
        der = base64.b64decode("".join(block[1].split())) if block else b""
    except binascii.Error:
        return None
    validity = _VALIDITY.search(der)
    if validity is None:
        return None
    short, long = validity[3], validity[4]
    # RFC 5280: two digits of a year from 50 on are of the twentieth century.
    century = b"" if short is None else b"19" if short[:2] >= b"50" else b"20"
    digits = (century + short) if short is not None else long
    return dt.datetime.strptime(digits.decode(), "%Y%m%d%H%M%S").replace(tzinfo=dt.UTC)


def _patterns(parameters: Parameters) -> list[str]:
    return list(parameters.get("paths", ())) or [str(parameters["path"])]


def _probe(wanted: Sequence[Parameters], _: HostConfig) -> Probe[Any]:
    patterns = [pattern for p in wanted for pattern in _patterns(p)]
    contents = [
        pattern for p in wanted if p["field"] not in ("state", "found") for pattern in _patterns(p)
    ]
    return path_states(patterns, contents=contents)


def _pick(found: Mapping[str, Sequence[PathState]], parameters: Parameters, _: HostConfig) -> Sight:
    patterns = _patterns(parameters)
    if missing := [pattern for pattern in patterns if pattern not in found]:
        return Unseen(f"the machine gave no answer about {', '.join(missing)}")
    states = [state for pattern in patterns for state in found[pattern]]
    if parameters["field"] == "found":
        return Seen([state.path for state in states])
    values = {state.path: _value(state, parameters) for state in states}
    if "path" in parameters and "*" not in str(parameters["path"]):
        return Seen(values.get(str(parameters["path"])))
    return Seen(values)


def _value(state: PathState, parameters: Parameters) -> Json:
    match parameters["field"]:
        case "state":
            return {
                "mode": state.mode,
                "owner": state.owner,
                "group": state.group,
                "type": state.type,
            }
        case "settings":
            return file_settings(state.content)
        case "match":
            found = _first_match(str(parameters.get("pattern", "")), state.content)
            # A file that does not say it leaves the program's own default in force.
            return parameters.get("default") if found is None else found
        case "days-left":
            end = certificate_end(state.content)
            return None if end is None else (end - dt.datetime.now(dt.UTC)).days
        case _:
            return state.content.strip()


def _first_match(pattern: str, text: str) -> str | None:
    """Return the first group (or the whole) of the first line that matches."""
    match = re.search(pattern, text, re.MULTILINE)
    if match is None:
        return None
    return match[1] if match.groups() else match[0]


TEXT_READERS: Mapping[str, Reader] = {"file": Reader(probe=_probe, pick=_pick)}
