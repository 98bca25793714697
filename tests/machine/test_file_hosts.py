"""Hosts without a flake: what a file may hold, for real, on a small nixpkgs of the test's own; and a
``configuration.nix`` on a real one, which ``PYTEST_NIXOS_NIXPKGS`` names.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from pytest_nixos.cli.main import main
from pytest_nixos.errors import EvalError, FlakeError, SettingsError
from pytest_nixos.local.process import SubprocessRunner
from pytest_nixos.nix.building.store import Nix
from pytest_nixos.nix.command.argv import NixSettings
from pytest_nixos.nix.command.cache import EvaluationCache
from pytest_nixos.nix.command.refs import FileRef
from pytest_nixos.nix.expression import Instrumentation
from pytest_nixos.nix.file_hosts import NoFlake
from pytest_nixos.nix.flake import Flake
from pytest_nixos.nix.flakes import Flakes
from tests.machine.test_nix_command import TINY
from tests.machine.test_real_nixpkgs import NIXPKGS, OVERLAYS

PROGRAMS = os.environ.get("PYTEST_NIXOS_NIX_PROGRAMS", "nix").split(":")

pytestmark = pytest.mark.skipif(
    not all(shutil.which(program) for program in PROGRAMS), reason=f"no such program: {PROGRAMS}"
)

_HOSTS = (
    TINY[TINY.index("let\n") : TINY.index("      in\n")] + "in { web = host config; }"
).replace(
    "options.virtualisation", "options.system.build.toplevel = { }; options.virtualisation", 1
)
FILES = {
    "hosts.nix": _HOSTS,
    "default.nix": """
{ system ? builtins.currentSystem }: import ./hosts.nix // {
  machines = { pkgs ? null }: { "in.ner" = (import ./hosts.nix).web; };
  broken = throw "the author's own words";
  n = 1;
  f = x: x;
  shell = { type = "derivation"; };
}
""",
    "one.nix": "(import ./hosts.nix).web",
    "configuration.nix": "{ config, pkgs, ... }: { }",
    "plain.nix": '{ ... }: { networking.hostName = "plain"; }',
    "nothing/default.nix": "{ n = 1; }",
    "needs.nix": "{ sources, x ? 1 }: import ./hosts.nix",
    "hive.nix": '{ machines.web = (import ./hosts.nix).web; machines."a.b" = (import ./hosts.nix).web; }',
    "modules.nix": """
let bare = { options = { }; config = throw "never read"; extendModules = _: bare; };
in import ./hosts.nix // { home = bare; darwin = bare // { class = "darwin"; extraArgs = { }; }; }
""",
    "dotted.nix": """
let web = (import ./hosts.nix).web; named = name: web // { config = web.config // { networking.hostName = name; }; };
in { "we.b" = named "dotted"; we.b = named "nested"; }
""",
    "nixpkgs/nixos/lib/eval-config.nix": """
{ modules }: assert builtins.isPath (builtins.head modules);
let host = (import ../../../hosts.nix).web; in host // { config = host.config // { networking.hostName = toString (builtins.head modules); }; }
""",
}


@pytest.fixture(autouse=True)
def around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setenv("NIX_PATH", f"nixpkgs={tmp_path}/nixpkgs")
    if os.geteuid() == 0:
        monkeypatch.setenv("NIX_CONFIG", "build-users-group =\nsandbox = false\n")


@pytest.fixture(params=PROGRAMS)
def hosts(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    def of(name: str, **settings: Any) -> Flake:
        cache = EvaluationCache(directory=tmp_path / "cache")
        found = NixSettings(program=request.param, cache=cache, **settings)
        flakes = Flakes(
            Nix(runner=SubprocessRunner(), settings=found), Instrumentation(channel_script="s")
        )
        return flakes.of(FileRef.parse(name, cwd=tmp_path))

    return of


@pytest.mark.parametrize(
    ("name", "names"),
    [
        (".", {"broken", "web"}),
        ("default.nix", {"broken", "web"}),
        ("one.nix", {"one"}),
        ("configuration.nix", {"configuration"}),
        ("plain.nix", {"plain"}),
        ("nothing", set()),
        ("modules.nix", {"web"}),
        ("dotted.nix", {'"we.b"'}),
    ],
)
def test_what_stands_in_a_file_is_known(hosts: Any, name: str, names: set[str]) -> None:
    assert set(hosts(name).host_names()) == names


def test_a_host_is_named_by_its_attribute_path(hosts: Any) -> None:
    config = hosts(".").evaluate('machines."in.ner"')
    assert config.host_name == "tiny"
    assert config.name == 'machines."in.ner"'


def test_a_module_is_evaluated_with_the_channel(hosts: Any, tmp_path: Path) -> None:
    config = hosts("configuration.nix").evaluate("configuration")
    assert config.host_name == str(tmp_path / "configuration.nix")


def test_a_host_that_throws_is_told(hosts: Any) -> None:
    with pytest.raises(EvalError, match="the author's own words") as caught:
        hosts(".").evaluate("broken")
    assert "-A broken.config.system.build.toplevel" in caught.value.remedy


@pytest.mark.parametrize(
    ("name", "text", "host", "asked"),
    [
        ("bad.nix", None, "bad", ["bad.nix", "-A", "config"]),
        (
            "web/default.nix",
            "{ web = import ../bad.nix; }",
            "web",
            ["default.nix", "-A", "web.config"],
        ),
        ("web/default.nix", "import ../bad.nix", "web", ["default.nix", "-A", "config"]),
    ],
)
def test_the_remedy_is_a_command_that_reaches_the_host(
    hosts: Any, tmp_path: Path, name: str, text: str | None, host: str, asked: list[str]
) -> None:
    bad = """
let web = (import ./hosts.nix).web; thrown = throw "own words";
in web // { config = thrown; extendModules = thrown; }
"""
    (tmp_path / "bad.nix").write_text(bad)
    (tmp_path / "web").mkdir()
    (tmp_path / name).write_text(text or bad)
    with pytest.raises(EvalError, match="own words") as caught:
        hosts(name).evaluate(host)
    command = shlex.split(caught.value.remedy.partition("\n")[2])
    file, attr, path = asked
    told = [str((tmp_path / name).parent / file), attr, f"{path}.system.build.toplevel"]
    assert command == ["nix-instantiate", "--show-trace", *told]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "own words" in done.stderr


def test_the_remedy_of_a_file_that_is_none_reaches_it(hosts: Any, tmp_path: Path) -> None:
    (tmp_path / "odd.nix").write_text("{ a = ")
    with pytest.raises(EvalError) as caught:
        hosts("odd.nix").host_names()
    command = shlex.split(caught.value.remedy.partition("\n")[2])
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "syntax error" in done.stderr


def test_where_a_channel_was_looked_for_is_told(
    hosts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIX_PATH", "nixpkgs=/nonexistent")
    with pytest.raises(EvalError, match="in NIX_PATH, which is 'nixpkgs=/nonexistent'"):
        hosts("configuration.nix").evaluate("configuration")


def test_no_such_host_names_those_that_there_are(hosts: Any) -> None:
    with pytest.raises(FlakeError, match="hosts at the top of the file: broken, web"):
        hosts(".").evaluate("nope")


def test_no_channel_is_told(hosts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIX_PATH", "")
    with pytest.raises(EvalError, match="there is no <nixpkgs> in NIX_PATH"):
        hosts("configuration.nix").evaluate("configuration")


def test_nothing_is_kept_of_what_may_change_unseen(hosts: Any, tmp_path: Path) -> None:
    hosts(".").evaluate("web")
    assert hosts(".").known("web") is None
    assert "evaluations" not in {entry.name for entry in (tmp_path / "cache").glob("*.json")}


def test_what_only_a_flake_has_is_refused(hosts: Any) -> None:
    file = hosts(".")
    for ask in (file.lock_answer, file.check_answer, file.dev_shell_names, file.systems):
        with pytest.raises(NoFlake, match="comes from a file"):
            ask()


def test_an_input_to_override_is_refused(hosts: Any) -> None:
    with pytest.raises(FlakeError, match="a file has no inputs, and 'nixpkgs'"):
        hosts(".", override_inputs=(("nixpkgs", "path:/x"),)).host_names()


def test_the_repository_around_a_file_is_its_source(hosts: Any, tmp_path: Path) -> None:
    assert hosts("nothing").root == tmp_path / "nothing"
    (tmp_path / ".git").mkdir()
    file = hosts("nothing")
    assert file.root == tmp_path
    assert file.source == tmp_path / "nothing"


def test_the_command_line_lists_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["hosts", "--file", str(tmp_path), "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed[-1] == {"name": "web", "file": f"{tmp_path}/default.nix", "attr": "web"}


def test_hosts_are_listed_of_one_thing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["hosts", "/nonexistent", "--file", "one.nix"]) == 4
    said = capsys.readouterr().err
    assert "hosts: /nonexistent and --file one.nix: hosts are listed of one of them" in said


def test_a_name_with_a_dot_is_the_host_of_that_name(hosts: Any) -> None:
    file = hosts("dotted.nix")
    (name,) = file.host_names()
    assert file.evaluate(name).host_name == "dotted"
    assert file.evaluate("we.b").host_name == "nested"


@pytest.mark.parametrize("ask", ["names", "web"])
def test_arguments_without_a_default_are_told(hosts: Any, ask: str) -> None:
    file = hosts("needs.nix")
    with pytest.raises(FlakeError, match="arguments without a default: sources") as caught:
        file.host_names() if ask == "names" else file.evaluate(ask)
    assert "{ sources ? import ./npins }" in caught.value.remedy


def test_hosts_further_down_are_told(hosts: Any) -> None:
    file = hosts("hive.nix")
    with pytest.raises(FlakeError, match=r"further down: machines\.\"a\.b\", machines\.web"):
        file.host_names()
    assert file.evaluate("machines.web").host_name == "tiny"


@pytest.mark.parametrize("name", ["flake.nix", "."])
def test_a_flake_is_no_file_of_hosts(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "flake"
    folder.mkdir()
    (folder / "flake.nix").write_text("{ }")
    with pytest.raises(SettingsError, match=f"write --nixos-flake {folder}"):
        FileRef.parse(name, cwd=folder)


@pytest.mark.parametrize("option", ["--nixos-file", "--file"])
def test_a_link_to_itself_is_told(
    tmp_path: Path, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "loop.nix").symlink_to("loop.nix")
    if option == "--nixos-file":
        done = judged(tmp_path, [option, "loop.nix"])[1]
        assert (done.returncode, "INTERNALERROR" in done.stdout + done.stderr) == (4, False)
        assert "loop.nix" in done.stderr
    else:
        assert main(["hosts", option, str(tmp_path / "loop.nix")]) == 4
        assert "loop.nix" in capsys.readouterr().err


def test_no_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"there is no file .*/none\.nix"):
        FileRef.parse("none.nix", cwd=tmp_path)


def judged(
    tmp_path: Path, arguments: Sequence[str]
) -> tuple[Mapping[str, Mapping[str, Any]], subprocess.CompletedProcess[str]]:
    report = tmp_path / "report.json"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)),
            *("--nixos-report", f"json:{report}", *arguments),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    findings = json.loads(report.read_text())["findings"] if report.exists() else []
    return {finding["control"]: finding for finding in findings}, done


def test_what_a_flake_gives_is_not_applicable_with_the_reason(tmp_path: Path) -> None:
    asked = ["--nixos-suite", "nix-flake", "--nixos-suite", "devshell"]
    asked += ["--nixos-profile", "hardened", "--nixos-profile", "devshell"]
    wanted = "FLK-00 or lock_file_fits or check_passes or devshell"
    found, done = judged(tmp_path, ["--nixos-file", ".", "-A", "web", *asked, "-k", wanted])
    not_told = {name for name, finding in found.items() if finding["outcome"] == "not-applicable"}
    locks = {f"FLK-00{n}" for n in range(1, 8)}
    assert locks | {"FLK-009", "DEV-001"} <= not_told, done.stdout
    for name in locks | {"FLK-009", "DEV-001"}:
        assert "the host comes from a file, not from a flake" in found[name]["reason"]
    assert found["FLK-008"]["outcome"] == "passed"
    assert done.returncode == 0, done.stdout


def test_a_file_on_the_command_line_beats_a_flake_of_the_ini_file(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\nnixos_flake = .#elsewhere\n")
    done = judged(tmp_path, ["--nixos-file", ".", "-A", "web", "--collect-only", "-q"])[1]
    assert done.returncode == 0, done.stdout
    assert "[web-" in done.stdout
    assert "elsewhere" not in done.stdout


def test_a_flake_on_the_command_line_beats_a_file_of_the_ini_file(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\nnixos_file = .\nnixos_attr = web\n")
    (tmp_path / "flake.nix").write_text(TINY)
    asked = ["--nixos-flake", ".#tiny.example-1", "--collect-only", "-q"]
    done = judged(tmp_path, asked)[1]
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[tiny.example-1-" in done.stdout


def test_a_host_waives_for_itself_and_asks_for_a_profile(tmp_path: Path) -> None:
    said = """
passthru.pytest-nixos = {
  profiles = [ "hardened" ];
  waivers = [ { control = "FLK-010"; reason = "r"; owner = "ops"; expires = "2099-01-01"; } ];
};
"""
    hosts = tmp_path / "hosts.nix"
    hosts.write_text(hosts.read_text().replace("config = {", f"config = {{ {said}", 1))
    (tmp_path / "unhashed.nix").write_text('builtins.fetchTarball "https://example.org/x.tgz"\n')
    asked = ["--nixos-file", ".", "-A", "web", "--nixos-suite", "nix-flake"]
    found, done = judged(tmp_path, [*asked, "--nixos-profile", "devshell", "-k", "FLK-010"])
    assert found["FLK-010"]["outcome"] == "waived", done.stdout
    assert "waived by ops until 2099-01-01: r" in found["FLK-010"]["reason"]
    assert "web: asks for the profiles hardened" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-A", "web"], "--nixos-attr web: there is no file that it could be of"),
        (["--nixos-file", ".", "--nixos-file", "one.nix", "-A", "web"], "are several files"),
        (["--nixos-file", "nothing"], "nothing in this file is a host"),
        (["--nixos-file", ""], "--nixos-file: the value is empty"),
        (["--nixos-file", ".", "-A", ""], "-A: the value is empty"),
        (["--nixos-file", ".", "-A", "."], "-A '.': an empty or odd name"),
        (["--nixos-file", ".", "-A", "web."], "-A 'web.': an empty or odd name"),
        (["--nixos-file", ".", "-A", '"we.b'], "a quote is not closed"),
    ],
)
def test_what_is_wrong_is_one_message(tmp_path: Path, arguments: list[str], words: str) -> None:
    done = judged(tmp_path, arguments)[1]
    assert done.returncode == 4
    assert words in done.stderr


@pytest.mark.skipif(not NIXPKGS, reason="PYTEST_NIXOS_NIXPKGS names no nixpkgs tree")
def test_a_configuration_of_a_real_channel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIX_PATH", f"nixpkgs={NIXPKGS}")
    (tmp_path / "configuration.nix").write_text(
        f"""{{ config, pkgs, ... }}:
{{
  imports = [ ./ssh.nix ];
  nixpkgs.overlays = {OVERLAYS};
  networking.hostName = "by-hand";
  system.stateVersion = "24.05";
  fileSystems."/" = {{ device = "/dev/vda1"; fsType = "ext4"; }};
  boot.loader.grub.device = "/dev/vda";
}}
"""
    )
    (tmp_path / "ssh.nix").write_text(
        '{\n  services.openssh.enable = true;\n  services.openssh.settings.PermitRootLogin = "yes";\n}\n'
    )
    nix = Nix(runner=SubprocessRunner(), settings=NixSettings(program=PROGRAMS[0]))
    file = Flakes(nix, Instrumentation(channel_script="s")).of(
        FileRef.parse("configuration.nix", cwd=tmp_path)
    )
    asked = "services.openssh.settings.PermitRootLogin"
    config = file.evaluate("configuration", option_paths=(asked,), where=(asked,))
    assert config.host_name == "by-hand"
    assert Path(config.derivation).exists()
    from pytest_nixos.nix.config.places import Places
    from pytest_nixos.nix.where import Whereabouts

    places = Whereabouts(config, trees=Places.of(file.metadata), root=file.root).of_option(asked)
    assert [(place.spot, place.own) for place in places] == [("ssh.nix:3", True)]
