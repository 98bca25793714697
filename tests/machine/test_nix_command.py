"""The Nix command line for real: small flakes without nixpkgs, each error as each installed
release words it.

``PYTEST_NIXOS_NIX_PROGRAMS`` names the releases to try, separated by colons; by default ``nix`` of
PATH.
"""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_nixos.errors import BuildError, EvalError, FlakeError, NixosError
from pytest_nixos.local.process import SubprocessRunner
from pytest_nixos.nix.building.store import Nix
from pytest_nixos.nix.command.argv import NixSettings
from pytest_nixos.nix.command.cache import EvaluationCache
from pytest_nixos.nix.command.log import BuildProgress
from pytest_nixos.nix.command.refs import FlakeRef
from pytest_nixos.nix.expression import Instrumentation, expression_sources
from pytest_nixos.nix.flakes import Flakes
from tests.support.processes import processes

PROGRAMS = os.environ.get("PYTEST_NIXOS_NIX_PROGRAMS", "nix").split(":")

pytestmark = pytest.mark.skipif(
    not all(shutil.which(program) for program in PROGRAMS), reason=f"no such program: {PROGRAMS}"
)

# A host as `nixosSystem` returns it, as far as the plugin looks; it ignores the modules it is
# extended with.
TINY = """
{
  outputs = { self }: {
    nixosConfigurations =
      let
        package = name: (derivation { inherit name; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" "echo > $out" ]; }) // { meta.mainProgram = "run-it-vm"; };
        config = {
          networking.hostName = "tiny";
          networking.firewall = { enable = true; allowedTCPPorts = [ 22 ]; };
          system = { name = "tiny"; build = { vm = package "vm"; toplevel = package "toplevel"; }; };
          boot.kernel.sysctl = { "a.b" = true; "c.d" = false; "e.f" = null; "g.h" = 7; "i.j" = throw "no"; };
          virtualisation.vmVariant = config // { system = config.system // { build = { toplevel = package "vm-toplevel"; vm = package "vm"; }; }; };
          systemd.units."x.service" = { enable = true; text = "[Service]\\nA=b\\n"; wantedBy = [ ]; };
          odd = { thrown = throw "thrown"; loop = config; function = x: x; wrong = 1 + "x"; missing = { }.a; path = ./flake.nix; };
        };
        host = config: rec { inherit config; options.virtualisation.vmVariant = { }; extendModules = _: { inherit config options extendModules; }; };
      in
      {
        "tiny.example-1" = host config;
        container = host (config // { boot = { isContainer = true; }; });
        itself = host (config // { boot = { isContainer = true; }; }) // { extendModules = _: throw "evaluated once more"; };
        throws = throw "the author's own\\nwords";
        asserts = host (config // { system = config.system // { build = throw "\\nFailed assertions:\\n- ports must be even"; }; });
        absent = import ./nothere.nix;
        outside = import /etc/nothere.nix;
        bare = { };
        closed = { inherit config; };
        old = builtins.removeAttrs (host config) [ "options" ] // { options = { }; };
      };
  };
}
"""


@pytest.fixture(autouse=True)
def single_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let root build without build users, as in a fresh Debian package."""
    settings = "build-users-group =\nsandbox = false\nconnect-timeout = 2\n"
    if os.geteuid() == 0:
        monkeypatch.setenv("NIX_CONFIG", settings + os.environ.get("NIX_CONFIG", ""))


@pytest.fixture(params=PROGRAMS)
def make(request: pytest.FixtureRequest) -> Callable[..., Flakes]:
    def make_flakes(**settings: Any) -> Flakes:
        nix = Nix(
            runner=SubprocessRunner(), settings=NixSettings(program=request.param, **settings)
        )
        return Flakes(nix, Instrumentation(channel_script="s"))

    return make_flakes


@pytest.fixture
def tiny(tmp_path: Path) -> FlakeRef:
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "flake.nix").write_text(TINY)
    return FlakeRef(f"path:{folder}")


def failure(action: Callable[[], object]) -> NixosError:
    with pytest.raises(NixosError) as caught:
        action()
    return caught.value


def test_hosts_are_listed_and_the_flake_stays_as_it_is(
    make: Callable[..., Flakes], tiny: FlakeRef
) -> None:
    assert "tiny.example-1" in make().of(tiny).host_names()
    folder = Path(tiny.url.removeprefix("path:"))
    assert [file.name for file in folder.iterdir()] == ["flake.nix"]


def test_one_evaluation_gives_facts_options_and_a_derivation(
    make: Callable[..., Flakes], tiny: FlakeRef, tmp_path: Path
) -> None:
    paths = [
        "odd.thrown",
        "odd.function",
        "odd.path",
        "odd.nope",
        "odd.wrong",
        "odd.missing",
        "odd.loop",
    ]
    cache = EvaluationCache(directory=tmp_path / "cache")
    host = make(cache=cache).of(tiny).evaluate("tiny.example-1", option_paths=paths)
    assert (host.backend, host.host_name, host.program) == ("vm", "tiny", "bin/run-it-vm")
    assert host.sysctls == {"a.b": "1", "c.d": "0", "g.h": "7"}
    assert host.unreadable == ('boot.kernel.sysctl."i.j"',)
    assert {path: host.option(path).state for path in paths} == {
        "odd.thrown": "unreadable",
        "odd.function": "present",
        "odd.path": "present",
        "odd.nope": "absent",
        "odd.wrong": "unreadable",
        "odd.missing": "unreadable",
        "odd.loop": "unreadable",  # holds a value that ends any evaluation
    }
    assert host.option("odd.path").value.endswith("-source/flake.nix")
    assert host.units["x.service"].setting("Service", "A") == ("b",)
    assert Path(host.derivation).is_file()
    folder = Path(tiny.url.removeprefix("path:"))
    assert [file.name for file in folder.iterdir()] == ["flake.nix"]


def test_a_container_by_its_own_word_and_by_ours(
    make: Callable[..., Flakes], tiny: FlakeRef
) -> None:
    declared = make().of(tiny).evaluate("container")
    assert (declared.backend, declared.program, declared.is_container) == ("container", "", True)
    asked = make().of(tiny).evaluate("tiny.example-1", backend="container")
    assert asked.derivation.endswith("-toplevel.drv")


@pytest.mark.parametrize("backend", ["auto", "container", "ssh"])
def test_what_nothing_is_added_to_is_evaluated_once(
    make: Callable[..., Flakes], tiny: FlakeRef, backend: str
) -> None:
    flake = make().of(tiny)
    assert flake.evaluate("itself", backend=backend).derivation.endswith("-toplevel.drv")
    with pytest.raises(EvalError, match="evaluated once more"):
        flake.instantiate_generation("itself", backend="container", delta="{ a = 1; }")


def test_a_generation_of_a_vm_is_the_variants_toplevel(
    make: Callable[..., Flakes], tiny: FlakeRef
) -> None:
    host, flake = "tiny.example-1", make().of(tiny)
    vm = flake.instantiate_generation(host, backend="vm", delta="{ }")
    container = flake.instantiate_generation(host, backend="container", delta="{ }")
    assert vm.endswith("-vm-toplevel.drv")
    assert container.endswith("-toplevel.drv")
    assert not container.endswith("-vm-toplevel.drv")
    error = failure(lambda: flake.instantiate_generation(host, backend="vm", delta="{ a = ; }"))
    assert "syntax error" in error.message


@pytest.mark.parametrize(
    ("attr", "kind", "says"),
    [
        ("throws", EvalError, "the author's own\nwords"),
        ("asserts", EvalError, "Failed assertions:\n- ports must be even"),
        ("absent", EvalError, "the flake's source has no nothere.nix"),
        ("outside", EvalError, "access to absolute path '/etc"),
        ("bare", EvalError, "it has no `config`"),
        ("closed", EvalError, "no `extendModules`"),
        ("old", EvalError, "no option virtualisation.vmVariant"),
        ("tiny-example-1", FlakeError, "no such host; the flake has absent, "),
    ],
)
def test_hosts_that_cannot_be_evaluated(
    make: Callable[..., Flakes], tiny: FlakeRef, attr: str, kind: type[NixosError], says: str
) -> None:
    error = failure(lambda: make().of(tiny).evaluate(attr))
    assert type(error) is kind
    assert says in error.message
    assert "while" not in error.message


def test_flakes_that_cannot_be_read(make: Callable[..., Flakes], tmp_path: Path) -> None:
    flakes = make()
    assert (
        "no such file" in failure(lambda: flakes.of(FlakeRef(f"{tmp_path}/nope")).metadata).message
    )
    assert (
        "no flake.nix there" in failure(lambda: flakes.of(FlakeRef(str(tmp_path))).metadata).message
    )
    (tmp_path / "flake.nix").write_text("{ outputs = _: { }; }")
    ref = FlakeRef(f"path:{tmp_path}")
    assert "no nixosConfigurations" in failure(lambda: flakes.of(ref).host_names()).message
    wrong = make(override_inputs=(("nope", f"path:{tmp_path}"),))
    assert "no input 'nope' to override" in failure(lambda: wrong.of(ref).metadata).message


def test_an_untracked_flake(make: Callable[..., Flakes], tmp_path: Path) -> None:
    if shutil.which("git") is None:
        pytest.skip("no git")
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / "flake.nix").write_text("{ outputs = _: { }; }")
    error = failure(lambda: make().of(FlakeRef(str(tmp_path))).metadata)
    assert "Git does not track flake.nix" in error.message


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A Git repository with a file that git-crypt locks and one that Git does not track;
    ``user`` is a flake with it as an input.
    """
    if shutil.which("git") is None:
        pytest.skip("no git")
    shared, user = tmp_path / "shared", tmp_path / "user"
    shared.mkdir()
    user.mkdir()
    hosts = "{ new = import ./new.nix; key = import ./key.nix; }"
    (shared / "flake.nix").write_text(f"{{ outputs = _: {{ nixosConfigurations = {hosts}; }}; }}")
    (shared / "key.nix").write_bytes(b"\0GITCRYPT\0\1\2\3\4")
    git = ("git", "-C", str(shared), "-c", "user.name=a", "-c", "user.email=a@example.org")
    for words in (("init", "-q"), ("add", "."), ("commit", "-q", "-m", "x")):
        subprocess.run([*git, *words], check=True)
    (shared / "new.nix").write_text("{ }")
    (user / "flake.nix").write_text(
        f"""{{
          inputs.shared.url = "git+file://{shared}";
          outputs = {{ shared, ... }}: {{ inherit (shared) nixosConfigurations; }};
        }}"""
    )
    return shared


def test_an_untracked_file_of_the_flake_and_of_an_input(
    make: Callable[..., Flakes], shared: Path
) -> None:
    own = failure(lambda: make().of(FlakeRef(str(shared))).evaluate("new"))
    assert (
        "the flake's source has no new.nix: it is there, and Git does not track it" in own.message
    )
    assert own.remedy == f"git -C {shared} add new.nix"
    user = FlakeRef(f"path:{shared.parent}/user")
    inputs = failure(lambda: make().of(user).evaluate("new"))
    assert "the source of the input shared has no new.nix: it is there" in inputs.message
    # What the remedy says works.
    override = (("shared", f"path:{shared}"),)
    assert f"--nixos-override-input shared path:{shared}" in inputs.remedy
    after = failure(lambda: make(override_inputs=override).of(user).evaluate("new"))
    assert "it has no `config`" in after.message


def test_a_file_that_git_crypt_locks(make: Callable[..., Flakes], shared: Path) -> None:
    own = failure(lambda: make().of(FlakeRef(f"path:{shared}")).evaluate("key"))
    assert "#key: key.nix is locked by git-crypt" in own.message
    user = failure(lambda: make().of(FlakeRef(f"path:{shared.parent}/user")).evaluate("key"))
    assert "#key: shared/key.nix is locked by git-crypt" in user.message


def test_a_private_input(make: Callable[..., Flakes], tmp_path: Path) -> None:
    if shutil.which("git") is None or shutil.which("ssh") is None:
        pytest.skip("no git, or no ssh")
    (tmp_path / "flake.nix").write_text(
        """{
          inputs.secret.url = "git+ssh://git@127.0.0.1:1/me/secret.git";
          outputs = { secret, ... }: { nixosConfigurations.a = secret; };
        }"""
    )
    error = failure(lambda: make().of(FlakeRef(f"path:{tmp_path}")).evaluate("a"))
    assert ": the input secret (git+ssh://git@127.0.0.1:1/me/secret.git" in error.message
    assert "cannot be fetched: ssh: connect to host 127.0.0.1 port 1" in error.message
    assert "git ls-remote ssh://git@127.0.0.1:1/me/secret.git" in error.remedy


def test_a_lock_of_a_newer_nix(make: Callable[..., Flakes], tmp_path: Path) -> None:
    (tmp_path / "flake.nix").write_text(
        '{ inputs.t.url = "path:./t"; outputs = { t, ... }: { nixosConfigurations.a = t; }; }'
    )
    (tmp_path / "flake.lock").write_text('{"nodes": {"root": {}}, "root": "root", "version": 99}')
    error = failure(lambda: make().of(FlakeRef(f"path:{tmp_path}")).evaluate("a"))
    assert "flake.lock was written by a newer Nix: its format 99" in error.message
    assert make().nix.version() in error.message


def test_an_evaluation_over_its_memory(make: Callable[..., Flakes], tmp_path: Path) -> None:
    numbers = (
        "builtins.length (builtins.sort (a: b: a < b) (builtins.genList (x: toString x) 9000000))"
    )
    (tmp_path / "flake.nix").write_text(
        f"{{ outputs = _: {{ nixosConfigurations.a = {numbers}; }}; }}"
    )
    flake = make(evaluation_limit_mib=300).of(FlakeRef(f"path:{tmp_path}"))
    error = failure(lambda: flake.evaluate("a"))
    assert "Nix had too little memory" in error.message
    assert "--nixos-evaluation-memory" in error.remedy


def test_the_source_is_found_where_metadata_names_none(
    make: Callable[..., Flakes], tiny: FlakeRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    flake = make().of(tiny)
    flake._metadata = {k: v for k, v in flake.metadata.items() if k != "path"}
    assert (flake.source / "flake.nix").read_text() == TINY


def drv(program: str, name: str, script: str, more: str = "") -> str:
    expression = (
        f'(derivation {{ name = "{name}"; system = builtins.currentSystem; builder = "/bin/sh";'
        f' args = [ "-c" "{script}" ]; PATH = "/bin:/usr/bin"; {more} }}).drvPath'
    )
    return subprocess.run(
        [program, "--extra-experimental-features", "nix-command flakes", "eval", "--impure", "--raw", "--expr", expression],
        check=True,
        capture_output=True,
        text=True,
    ).stdout  # fmt: skip


def test_a_build_is_told_rooted_and_closed(make: Callable[..., Flakes], tmp_path: Path) -> None:
    nix = make().nix
    salt = f"pytest-nixos-{os.getpid()}-{abs(hash(nix.settings.program))}"
    seen: list[BuildProgress] = []
    root = tmp_path / "roots" / "x"
    path = nix.build(
        drv(nix.settings.program, salt, "echo > $out"), gc_root=root, on_progress=seen.append
    )
    assert path.is_file()
    assert root.resolve() == path
    assert nix.closure(path) == (path,)
    assert any(salt in progress.building for progress in seen)
    assert seen[-1].building == ()

    again = tmp_path / "roots" / "again"
    assert nix.build("/no.drv", gc_root=again, output=str(path)) == path
    assert again.resolve() == path
    roots = subprocess.run(
        ["nix-store", "--query", "--roots", str(path)], check=True, capture_output=True, text=True
    )
    assert str(again) in roots.stdout
    # A build that was cut short leaves such a thing behind.
    with pytest.raises(BuildError):
        nix.build("/no.drv", gc_root=again, output=str(tmp_path))


def test_a_build_that_fails_shows_its_log(make: Callable[..., Flakes], tmp_path: Path) -> None:
    nix = make().nix
    derivation = drv(
        nix.settings.program, "pytest-nixos-fails", "echo to stdout; echo to stderr >&2; exit 3"
    )
    error = failure(lambda: nix.build(derivation, gc_root=tmp_path / "x"))
    assert isinstance(error, BuildError)
    assert error.derivation == derivation
    assert error.log_tail == ("to stdout", "to stderr")
    assert "exit code 3" in error.message


def test_a_build_out_of_time_leaves_no_process(make: Callable[..., Flakes], tmp_path: Path) -> None:
    nix = make(build_limit_s=8).nix
    derivation = drv(nix.settings.program, "pytest-nixos-slow", "exec sleep 4711.25")
    error = failure(lambda: nix.build(derivation, gc_root=tmp_path / "x"))
    assert "still building after 8 s" in error.message
    assert ("sleep", "4711.25") not in [process.words for process in processes()]


def test_the_reader_of_odd_values(make: Callable[..., Flakes]) -> None:
    program = make().nix.settings.program
    values = (
        "let self = { inherit self; a = 1; }; in"
        ' [ 1 1.5 true null "s" (x: x) { type = "derivation"; outPath = "/nix/store/x"; }'
        ' { __functor = _: _: 1; } { a = throw "x"; b = [ (throw "y") 2 ]; } { _type = "pkgs"; a = 1; }'
        ' { _type = "gvariant"; type = "u"; value = 600; __toString = self: "uint32 600"; } { a = 1; __toString = self: "x"; } ]'
    )
    expression = f"let safe = ({expression_sources()['safe.nix']}); in (safe.json ({values})).value"
    answer = subprocess.run(
        [program, "--extra-experimental-features", "nix-command", "eval", "--json", "--expr", expression],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert answer.stdout.strip() == (
        '[1,1.5,true,null,"s",null,"/nix/store/x",null,{"b":[null,2]},null,600,{"a":1}]'
    )
    endless = f"let safe = ({expression_sources()['safe.nix']}); s = {{ inherit s; t = s; a = 1; }}; in safe.json s"
    answer = subprocess.run(
        [program, "--extra-experimental-features", "nix-command", "eval", "--json", "--expr", endless],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert len(answer.stdout) < 100_000
