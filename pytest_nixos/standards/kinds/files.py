"""Kinds about files: their state, their content, settings and certificates in them; and programs
on PATH.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.observe.base import Probe
from pytest_nixos.observe.filesystems.file import FileState, files, programs
from pytest_nixos.standards.control.seen import Seen, Sight, Unseen
from pytest_nixos.standards.kinds.kind import (
    NEEDED_TEXTS,
    TEXT,
    TEXTS,
    Kind,
    Parameter,
    Parameters,
)

__all__ = ["KINDS", "certificate_end", "file_settings"]

Json = Any

_SETTING = re.compile(r"^\s*([A-Za-z_][\w.-]*)\s*(?:=|\s)\s*(.*?)\s*$")


def file_settings(text: str) -> dict[str, str]:
    """Read ``key = value`` and ``key value`` lines; comments and sections are left out, the last
    of a key counts.
    """
    found: dict[str, str] = {}
    for line in text.splitlines():
        if line.lstrip().startswith(("#", ";", "[")):
            continue
        if (match := _SETTING.match(line)) is not None:
            found[match[1]] = match[2].strip('"')
    return found


def certificate_end(text: str) -> dt.datetime | None:
    """Return when the first certificate of a PEM text ends; ``None`` where there is none that
    can be read.
    """
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificate(text.encode()).not_valid_after_utc
    except ValueError:
        return None


def _patterns(parameters: Parameters) -> list[str]:
    return list(parameters.get("paths", ())) or [str(parameters["path"])]


def _file_probe(wanted: Sequence[Parameters], _: HostConfig) -> Probe[Any]:
    patterns = [pattern for p in wanted for pattern in _patterns(p)]
    contents = [
        pattern for p in wanted if p["field"] not in ("state", "found") for pattern in _patterns(p)
    ]
    return files(patterns, contents=contents)


def _file(found: Mapping[str, Sequence[FileState]], parameters: Parameters, _: HostConfig) -> Sight:
    patterns = _patterns(parameters)
    if missing := [pattern for pattern in patterns if pattern not in found]:
        return Unseen(f"the machine gave no answer about {', '.join(missing)}")
    only = parameters.get("type")
    states = [s for pattern in patterns for s in found[pattern] if only in (None, s.type)]
    if parameters["field"] == "found":
        return Seen([state.path for state in states])
    values = {state.path: _value(state, parameters) for state in states}
    if "path" in parameters and "*" not in str(parameters["path"]):
        return Seen(values.get(str(parameters["path"])))
    return Seen(values)


def _value(state: FileState, parameters: Parameters) -> Json:
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


def _program_probe(wanted: Sequence[Parameters], _: HostConfig) -> Probe[Any]:
    return programs([name for p in wanted for name in p["names"]])


def _program(found: Sequence[str] | None, parameters: Parameters, _: HostConfig) -> Sight:
    if found is None:
        return Unseen("the search for programs did not come to its end")
    return Seen([name for name in parameters["names"] if name in found])


KINDS = (
    Kind(
        name="file",
        reads="mode, owner, presence and content of files",
        probe=_file_probe,
        find=_file,
        parameters={
            "path": TEXT,
            "paths": TEXTS,
            "field": Parameter(
                required=True,
                choices=("state", "content", "settings", "found", "match", "days-left"),
            ),
            "pattern": TEXT,
            "default": TEXT,
            # As stat(1) says: others are passed over.
            "type": TEXT,
        },
        one_of=("path", "paths"),
    ),
    Kind(
        name="program",
        reads="which of some programs are on PATH",
        probe=_program_probe,
        find=_program,
        parameters={"names": NEEDED_TEXTS},
    ),
)
