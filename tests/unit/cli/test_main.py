"""The command line: what it prints is fit for a terminal, and what is wrong is one error with a
remedy.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from pytest_nixos.cli import hosts
from pytest_nixos.cli.main import _MODULES, main
from pytest_nixos.errors import FlakeError
from pytest_nixos.nix.command.refs import FlakeRef, HomesRef


def _flakes(names: Callable[[], list[str]], homes: Sequence[str] = ()) -> SimpleNamespace:
    def of(ref: FlakeRef) -> SimpleNamespace:
        return SimpleNamespace(host_names=(lambda: homes) if isinstance(ref, HomesRef) else names)

    return SimpleNamespace(of=of)


def test_homes_are_listed_as_they_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(hosts, "default_flakes", lambda *_: _flakes(lambda: ["web"], ["alice@web"]))
    assert main(["hosts", "/f"]) == 0
    assert capsys.readouterr().out == "web\nhomeConfigurations.alice@web\n"
    assert main(["hosts", "/f", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[1] == {
        "name": "alice@web",
        "ref": "/f#homeConfigurations.alice@web",
    }


def test_names_of_hosts_are_made_printable(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        hosts, "default_flakes", lambda *_: _flakes(lambda: ["web", "\x1b]0;evil\x07\u202edb\nrow"])
    )
    assert main(["hosts", "."]) == 0
    assert capsys.readouterr().out == "web\n\ufffd]0;evil\ufffd\ufffddb\nrow\n"


def test_an_error_is_made_printable(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse() -> list[str]:
        raise FlakeError("no \x1b[31mflake", remedy="name one")

    monkeypatch.setattr(hosts, "default_flakes", lambda *_: _flakes(refuse))
    assert main(["hosts", "."]) == 4
    assert capsys.readouterr().err == "ERROR: no \ufffd[31mflake\n  remedy: name one\n"


@pytest.mark.parametrize("command", ["doctor", "hosts", "build", "controls", "cache"])
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    assert f"pytest-nixos {command}" in capsys.readouterr().out


def test_a_control_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["controls", "BOOT-001"]) == 0
    assert capsys.readouterr().out.startswith("BOOT-001  No unit has failed\n")


def test_the_command_line_loads_no_pytest() -> None:
    program = (
        "import sys, pytest_nixos.cli.main;"
        "print(*sorted({'pytest', '_pytest', 'pytest_nixos.plugin'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == ""


@pytest.fixture
def nix_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a ``nix`` on PATH that knows two hosts and has one name that is odd; return where it
    writes its calls.
    """
    calls = tmp_path / "calls"
    metadata = {
        "locked": {"narHash": "x"},
        "locks": {"root": "root", "nodes": {"root": {"inputs": {"a": "n"}}, "n": {}}},
    }
    program = tmp_path / "nix"
    program.write_text(f"""#!{sys.executable}
import json, sys
open({str(calls)!r}, "a").write(json.dumps(sys.argv[1:]) + "\\n")
if "metadata" in sys.argv:
    print({json.dumps(metadata)!r})
elif "boom" in sys.argv[-1] or any("boom" in word for word in sys.argv):
    event = {{"action": "msg", "level": 0, "msg": "error: x\\n  the whole trace", "raw_msg": "unable to download 'https://x'"}}
    sys.exit("@nix " + json.dumps(event))
else:
    print(json.dumps(["db", "we\\x1b[31mb"]))
""")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return calls  # fmt: skip


def test_hosts_are_listed_without_control_characters(
    nix_calls: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        main(["hosts", "path:/f", "--override-input", "a", "path:/x", "--nix-option", "cores", "2"])
        == 0
    )
    out = capsys.readouterr().out
    assert out.splitlines()[0] == "db"
    assert "\x1b" not in out
    for call in map(json.loads, nix_calls.read_text().splitlines()):
        assert call[call.index("--override-input") + 1 :][:2] == ["a", "path:/x"]
        assert call[call.index("--option") + 1 :][:2] == ["cores", "2"]  # fmt: skip


@pytest.mark.usefixtures("nix_calls")
def test_hosts_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["hosts", "path:/f", "--json"]) == 0
    first = json.loads(capsys.readouterr().out)[0]
    assert first == {"name": "db", "ref": "path:/f#db"}


@pytest.mark.usefixtures("nix_calls")
def test_one_host_is_listed_if_the_flake_has_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["hosts", "path:/f#db"]) == 0
    assert capsys.readouterr().out == "db\n"
    assert main(["hosts", "path:/f#bd"]) == 4
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("ERROR: path:/f#bd: no such host; the flake has db, ")
    assert "remedy: choose one of them: path:/f#db" in told.err


@pytest.mark.usefixtures("nix_calls")
@pytest.mark.parametrize("verbose", [False, True])
def test_an_error_names_the_options_of_this_command(
    capsys: pytest.CaptureFixture[str], verbose: bool
) -> None:
    assert main(["hosts", "path:/boom", *(["-v"] if verbose else [])]) == 4
    err = capsys.readouterr().err
    assert "cannot be fetched" in err
    assert "replaced: --override-input NAME" in err
    assert ("the whole trace" in err) is verbose


def test_a_command_needs_no_option_before_its_dashes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "nobody-0000", "--", "true"]) == 4
    assert "nobody-0000: no running machine" in capsys.readouterr().err


def test_dashes_without_a_command_are_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "nobody-0000", "--"]) == 4
    assert "no command" in capsys.readouterr().err


def commands_of(text: str) -> set[str]:
    """Return the commands that a help names."""
    return set(re.findall(r"^    ([a-z-]+)(?= |$)", text, re.MULTILINE))


def test_each_command_is_found_by_the_module_that_adds_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    listed = commands_of(capsys.readouterr().out)
    assert listed == {word for words in _MODULES.values() for word in words}
    for word in listed:
        with pytest.raises(SystemExit) as ended:
            main([word, "--help"])
        assert ended.value.code == 0, word
        capsys.readouterr()


def test_a_shell_does_not_wait_for_the_judge() -> None:
    program = (
        "import sys; from pytest_nixos.cli.main import main; main(['run', 'nobody-0000', '--', 'true']);"
        "print(*sorted(m for m in sys.modules if m.startswith('pytest_nixos')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    loaded = done.stdout.split()
    assert "pytest_nixos.cli.by_hand" in loaded
    heavy = ("pytest_nixos.standards", "pytest_nixos.observe", "pytest_nixos.machine.vm")
    assert [name for name in loaded if name.startswith(heavy)] == []
