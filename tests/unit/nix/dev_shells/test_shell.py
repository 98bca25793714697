"""Development shells and rebuilds: what is told apart without Nix, and a visit to a shell of our
own.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from pytest_nixos.nix.command.argv import (
    NixSettings,
    check_argv,
    develop_argv,
    lock_check_argv,
    rebuild_argv,
)
from pytest_nixos.nix.command.refs import FlakeRef
from pytest_nixos.nix.dev_shells.shell import DevShell, ShellVisit, Tool, changed_files, file_states
from pytest_nixos.nix.dev_shells.visit import KEPT, VISITED, scratch_copy, visit
from pytest_nixos.nix.expression import dev_shells_expression
from pytest_nixos.nix.rebuild import different, rebuildable
from tests.support.processes import processes

SETTINGS = NixSettings(override_inputs=(("nixpkgs", "path:/n"),))
FLAKE = FlakeRef("/f")


def visited(path: str = "", default: tuple[str, ...] = ()) -> ShellVisit:
    return ShellVisit(
        entered=True,
        failure="",
        said="",
        environment={"PATH": path},
        default_path=default,
        project=(),
        home=(),
        left_running=(),
        duration_s=0.0,
    )


def test_pure_entry_keeps_only_what_is_named() -> None:
    argv = develop_argv(
        SETTINGS, FLAKE, system="x86_64-linux", shell='a"b', command=("true",), kept=("HOME",)
    )
    assert argv[-5:-2] == ("--keep", "HOME", '/f#devShells."x86_64-linux"."a\\"b"')
    assert "--ignore-environment" in argv
    assert "--override-input" in argv
    impure = develop_argv(SETTINGS, FLAKE, system="s", shell="x", command=("true",))
    assert "--ignore-environment" not in impure


def test_lock_is_judged_without_replaced_inputs() -> None:
    argv = lock_check_argv(SETTINGS, FLAKE)
    assert "--no-update-lock-file" in argv
    assert "--override-input" not in argv
    assert "--override-input" in check_argv(SETTINGS, FLAKE)


@pytest.mark.parametrize(
    ("version", "name"), [("nix (Nix) 2.8.0", "/d.drv"), ("nix (Nix) 2.26.3", "/d.drv^*")]
)
def test_rebuild_names_outputs_where_nix_wants_it(version: str, name: str) -> None:
    argv = rebuild_argv(SETTINGS, ["/d.drv"], version=version)
    assert argv[-1] == name
    assert "--rebuild" in argv


def test_expression_carries_names_as_data() -> None:
    text = dev_shells_expression({"system": "x86_64-linux", "shell": "${evil}"})
    assert "\\${evil}" in text


def test_document_becomes_a_shell() -> None:
    shell = DevShell.parse(
        "x86_64-linux",
        "default",
        {
            "derivation": "/nix/store/s.drv",
            "tools": [{"name": "jq", "mainProgram": None, "outputs": ["/nix/store/jq"]}],
            "variables": {"URL": "u", "UNKNOWN": None},
        },
    )
    assert shell.variables == {"URL": "u"}
    assert shell.tools == (Tool(name="jq", main_program=None, outputs=("/nix/store/jq",)),)


def test_tool_lists_its_programs(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/jq").touch()
    tool = Tool(name="jq", main_program="jq", outputs=(str(tmp_path), "/nix/store/none"))
    assert tool.programs() == ("jq",)


def test_host_directories_on_path_are_told(tmp_path: Path) -> None:
    own, gone = str(tmp_path), str(tmp_path / "gone")
    assert visited(f"/nix/store/a/bin:{own}:{gone}").foreign_path == (own,)
    default = ("/usr/bin", "/bin")
    assert visited("/nix/store/a/bin:/usr/bin:/bin", default).foreign_path == ()
    twice = visited("/usr/bin:/nix/store/a/bin:/usr/bin:/bin", default)
    assert twice.foreign_path == ("/usr/bin",)


def test_program_is_found_as_a_shell_finds_it(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "jq").touch(mode=0o755)
    (tmp_path / "one/plain").touch(mode=0o644)
    visit_ = visited(f"{tmp_path}/one:{tmp_path}/two")
    assert visit_.find("jq") == f"{tmp_path}/one/jq"
    assert visit_.find("plain") is None


def test_changed_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("a")
    (tmp_path / "changed").write_text("a")
    (tmp_path / "gone").write_text("a")
    before = file_states(tmp_path)
    (tmp_path / "changed").write_text("ab")
    (tmp_path / "gone").unlink()
    (tmp_path / "new").mkdir()
    assert changed_files(before, file_states(tmp_path)) == ("~ changed", "- gone", "+ new")


def enter(tmp_path: Path, hook: str, *, limit_s: float = 20.0) -> ShellVisit:
    """Visit a shell that is only a hook."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source/flake.nix").write_text("{ }")
    (tmp_path / "source/flake.nix").chmod(0o444)
    script = f'{hook}\nexec "$@"'
    with scratch_copy(tmp_path / "source") as scratch:
        argv = ("/bin/sh", "-c", script, "sh", *VISITED)
        return visit(argv, scratch, cwd=scratch.project, limit_s=limit_s)


def test_visit_reports_the_environment(tmp_path: Path) -> None:
    found = enter(tmp_path, "export NOTES=1 LD_LIBRARY_PATH=/lib; echo hello; echo oops >&2")
    assert found.entered
    assert found.environment["NOTES"] == "1"
    assert found.environment["LD_LIBRARY_PATH"] == "/lib"
    assert {"hello", "oops"} <= set(found.said.splitlines())
    assert (found.project, found.home, found.left_running) == ((), (), ())
    assert "HOME" in KEPT


def test_visit_finds_what_is_left_behind_and_ends_it(tmp_path: Path) -> None:
    started_s = time.monotonic()
    found = enter(
        tmp_path, 'echo x > made; echo y >> flake.nix; : > "$HOME/seen"; setsid sleep 97.5 &'
    )
    assert time.monotonic() - started_s < 60
    assert found.project == ("~ flake.nix", "+ made")
    assert found.home == ("+ seen",)
    assert found.left_running == ("sleep 97.5",)
    assert ("sleep", "97.5") not in [process.words for process in processes()]


def test_visit_that_fails_says_why(tmp_path: Path) -> None:
    event = {"action": "msg", "level": 0, "msg": "error: no", "raw_msg": "builder failed"}
    found = enter(tmp_path, f"echo '@nix {json.dumps(event)}' >&2; exit 1")
    assert not found.entered
    assert found.failure == "builder failed"


def test_visit_that_never_ends_is_ended(tmp_path: Path) -> None:
    found = enter(tmp_path, "sleep 60", limit_s=0.5)
    assert not found.entered
    assert "not entered after 0.5 s" in found.failure


def derivation(directory: Path, name: str, output: Path, words: str, fixed: str = "") -> str:
    path = directory / f"{name}.drv"
    path.write_text(
        f'Derive([("out","{output}","{"sha256" if fixed else ""}","{fixed}")],[],[],"s","b",[],[{words}])'
    )
    return str(path)


def test_cheap_built_derivations_are_built_again(tmp_path: Path) -> None:
    built = tmp_path / "built"
    built.touch()
    cheap = derivation(tmp_path, "unit", built, '("preferLocalBuild","1")')
    script = derivation(tmp_path, "script", built, '("buildCommand","date")')
    system = derivation(tmp_path, "x-nixos-system-web", built, "")
    package = derivation(tmp_path, "gcc", built, '("buildPhase","make")')
    absent = derivation(tmp_path, "absent", tmp_path / "no", '("preferLocalBuild","1")')
    fixed = derivation(tmp_path, "source", built, '("preferLocalBuild","1")', fixed="00")
    asked = [cheap, script, system, package, absent, fixed, "/nix/store/builder.sh", "/gone.drv"]
    assert rebuildable(asked) == (cheap, script, system)


def test_differing_derivations_are_read_from_what_nix_says() -> None:
    said = (
        "derivation '/nix/store/a-x.drv' may not be deterministic: output '/nix/store/b' differs\n"
        "derivation '/nix/store/a-x.drv' may not be deterministic: output '/nix/store/c' differs"
    )
    assert different(said) == ("/nix/store/a-x.drv",)
    assert different("builder failed") == ()
    newer = (
        'derivation "/nix/store/a-x.drv" may not be deterministic: output "/nix/store/b" differs'
    )
    assert different(newer) == ("/nix/store/a-x.drv",)
    lix = "derivation 'unit-x.service.drv' may not be deterministic: output '/nix/store/b' differs"
    assert different(lix) == ("unit-x.service",)
