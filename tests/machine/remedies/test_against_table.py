"""Every remedy is held against the kept table of options: on each release that it is for its
options are there, and its values fit.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from pytest_nixos.standards.judging.applicability import outside_releases
from tests.machine.remedies.samples import Text, as_module, texts
from tests.machine.remedies.table import Option, is_of_type, read_table

Json = Any
HERE = Path(__file__).parent
RELEASES = ("24.05", "24.11", "25.05", "25.11", "26.05", "26.11")
OPTIONS = read_table()
MODULES = [text for text in texts() if text.is_module]

pytestmark = pytest.mark.skipif(not shutil.which("nix-instantiate"), reason="there is no Nix")


@pytest.fixture(scope="module")
def contents(
    tmp_path_factory: pytest.TempPathFactory,
) -> Mapping[str, list[tuple[list[str], Json]]]:
    """What each remedy sets: path and value, read without nixpkgs."""
    folder = tmp_path_factory.mktemp("texts")
    files = {text.name: str(as_module(text.text, folder / f"{text.name}.nix")) for text in MODULES}
    (folder / "request.json").write_text(json.dumps(files))
    answer = subprocess.run(
        ["nix-instantiate", "--eval", "--strict", "--json", "--arg", "request", str(folder / "request.json"), str(HERE / "read.nix")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr[-2000:]
    found: Mapping[str, list[tuple[list[str], Json]]] = json.loads(answer.stdout)
    return found


def releases_of(text: Text) -> Iterator[str]:
    for release in RELEASES:
        spans = ((text.remedy.since, text.remedy.until), (text.control.since, text.control.until))
        if all(outside_releases(since, until, release) is None for since, until in spans):
            yield release


def problems(path: list[str], value: Json, release: str) -> Iterator[str]:
    known = [o for o in OPTIONS if o.depth_in(path)]
    there = [o for o in known if o.is_in(release)]
    if not there:
        gone = ", ".join(f"{o.option} {o.since or '...'} to {o.until or '...'}" for o in known)
        yield f"{'.'.join(path)} is not an option of {release} ({gone or 'not in the table'})"
        return
    depth = max(o.depth_in(path) for o in there)
    if any(o.depth_in(path) > depth for o in known):
        yield f"{'.'.join(path)} is no longer, or not yet, an option of {release}"
    option: Option = next(o for o in there if o.depth_in(path) == depth)
    for name in reversed(path[depth:]):
        value = {name: value}
    if value != "<unknown>" and not is_of_type(value, option.type):
        yield f"{option.option} = {value!r} is no {option.type}"


def test_options_are_there_and_values_fit(
    contents: Mapping[str, list[tuple[list[str], Json]]],
) -> None:
    found = [
        f"{text.name}: {problem}"
        for text in MODULES
        for release in releases_of(text)
        for path, value in contents[text.name]
        # One of comments alone sets nothing; test_bundled.py says which may be.
        if path
        for problem in problems(path, value, release)
    ]
    assert list(dict.fromkeys(found)) == []
    assert sum(len(contents[text.name]) for text in MODULES) > 400


def test_text_for_other_places_is_of_their_language(tmp_path: Path) -> None:
    for text in texts():
        place = text.remedy.goes_into
        if place is None:
            continue
        file = tmp_path / text.name
        if "shell" in place:
            file.write_text(text.text)
            command = ["bash", "-n", str(file)]
        else:
            inside = text.text if text.text.startswith("{") else f"{{ {text.text}\n }}"
            file.write_text(f"{{ pkgs, lib, nixpkgs, self, inputs, config, ... }}: {inside}")
            command = ["nix-instantiate", "--parse", str(file)]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        assert answer.returncode == 0, f"{text.name}: {answer.stderr}"


def test_each_line_of_the_table_is_used_and_has_a_source(
    contents: Mapping[str, list[tuple[list[str], Json]]],
) -> None:
    paths = [path for text in MODULES for path, _ in contents[text.name]]
    idle = [o.option for o in OPTIONS if not any(o.depth_in(path) for path in paths)]
    assert idle == []
    assert [o.option for o in OPTIONS if not o.source] == []
    assert len({(o.option, o.since) for o in OPTIONS}) == len(OPTIONS)


@pytest.mark.parametrize(
    ("value", "description", "fits"),
    [
        (True, "boolean", True),
        ("yes", "boolean", False),
        (60, "signed integer", True),
        (True, "signed integer", False),
        (70000, "16 bit unsigned integer; between 0 and 65535 (both inclusive)", False),
        (None, "null or string", True),
        (["a", 1], "list of string", False),
        (["a"], "non-empty (list of string (with check: non-empty))", True),
        ("text", "list of string", False),
        ("allow-downgrade", 'one of "true", "allow-downgrade", "false"', True),
        ("no", 'one of "true", "allow-downgrade", "false"', False),
        (False, 'null or one of false, "rocm", "cuda"', True),
        ("loose", 'boolean or one of "strict", "loose"', True),
        ("weak", 'boolean or one of "strict", "loose"', False),
        ({"a": "b"}, "attribute set of string", True),
        ({"a": 1}, "attribute set of string", False),
        ("04:40", r"string matching the pattern [[:digit:]]{2}:[[:digit:]]{2}", True),
        ("4:40", r"string matching the pattern [[:digit:]]{2}:[[:digit:]]{2}", False),
        ("a\nb", 'strings concatenated with "\\n"', True),
        (["a"], 'strings concatenated with "\\n"', False),
    ],
)  # fmt: skip
def test_types_are_read_as_nixpkgs_describes_them(
    value: Json, description: str, *, fits: bool
) -> None:
    assert is_of_type(value, description) is fits
