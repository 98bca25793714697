"""Files by path and glob, and programs on PATH."""

from __future__ import annotations

from pathlib import Path

from pytest_nixos.observe.filesystems.file import files, programs
from tests.unit.observe.here import ask, parsed


def test_states_of_files_globs_and_missing_ones(tmp_path: Path) -> None:
    (tmp_path / "a b.key").write_text("one\ntwo")
    (tmp_path / "a b.key").chmod(0o600)
    (tmp_path / "c.key").symlink_to(tmp_path / "a b.key")
    pattern, missing = f"{tmp_path}/*.key".replace(" ", "?"), f"{tmp_path}/none"
    found = ask(files([pattern, missing, str(tmp_path)], contents=[pattern]))
    assert [s.path for s in found[pattern]] == [f"{tmp_path}/a b.key", f"{tmp_path}/c.key"]
    assert {s.mode for s in found[pattern]} == {"600"}
    assert {s.content for s in found[pattern]} == {"one\ntwo"}
    assert found[missing] == ()
    assert found[str(tmp_path)][0].type == "directory"


def test_no_paths_ask_nothing() -> None:
    assert files([]).script == ":"


def test_programs_are_found_only_if_the_search_came_to_its_end() -> None:
    assert ask(programs(["bash", "no-such-program"])) == ("bash",)
    assert parsed(programs(["telnet"]), "") is None
