import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pytest_nixos.errors import BuildError, EvalError, FlakeError, ToolMissingError
from pytest_nixos.local.process import Completed, LineSink, ProcessTimeout
from pytest_nixos.nix.argv import NixSettings
from pytest_nixos.nix.cache import EvaluationCache
from pytest_nixos.nix.expression import Instrumentation
from pytest_nixos.nix.failures import EvalInterrupted, ImageRefused
from pytest_nixos.nix.flake import Flake
from pytest_nixos.nix.log import BuildProgress, describe
from pytest_nixos.nix.refs import FlakeRef, nix_quote
from pytest_nixos.nix.store import Nix
from tests.support.runner import FakeRunner
from tests.unit.host_documents import document

FLAKE = FlakeRef("/f")
FIXED = {"locked": {"narHash": "sha256-x"}, "locks": {"root": "root", "nodes": {"root": {}}}}
LOOSE = {"locked": {"dirtyRev": "x"}, "locks": FIXED["locks"]}


@dataclass
class FakeNix(FakeRunner):
    """A runner that plays a Nix: answers by subcommand, evaluations by a function of the
    request.
    """

    version: str = "nix (Nix) 2.8.0"
    metadata: Mapping[str, Any] = field(default_factory=lambda: FIXED)
    broken: frozenset[str] = frozenset()
    words: str = "x"
    host: Mapping[str, Any] = field(default_factory=document)
    stderr: tuple[str, ...] = ()
    exit_status: int = 0
    timeout: bool = False
    valid: tuple[str, ...] = ()
    prefetched: Mapping[str, Any] = field(default_factory=dict)
    peak_bytes: int | None = None
    homes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__init__(self._play)

    def _play(self, argv: Sequence[str], on_stderr_line: LineSink | None) -> Completed:
        words = set(argv)
        if "prefetch" in words:
            return self._done(argv, json.dumps(self.prefetched), 0 if self.prefetched else 1)
        if "--version" in words:
            return self._done(argv, self.version)
        if "metadata" in words:
            return self._done(argv, json.dumps(self.metadata))
        if self.timeout:
            raise ProcessTimeout("late", remedy="")
        for line in self.stderr:
            assert on_stderr_line is not None
            on_stderr_line(line)
        if self.exit_status:
            return self._done(argv, "", self.exit_status)
        return self._answer(argv, words, on_stderr_line)

    def _answer(
        self, argv: Sequence[str], words: set[str], on_stderr_line: LineSink | None
    ) -> Completed:
        if "eval" in words:
            return self._eval(argv, on_stderr_line)
        if "build" in words:
            return self._done(argv, json.dumps([{"outputs": {"out": "/nix/store/o"}}]))
        if "nix-store" in words:
            return self._done(argv, "", 0 if argv[-1] in self.valid else 1)
        if "path-info" in words:
            return self._done(argv, "/nix/store/a\n/nix/store/b\n")
        return self._done(argv, "log line\n")

    def evaluations(self) -> list[tuple[str, ...]]:
        return [call for call in self.calls if "eval" in call]

    def _eval(self, argv: Sequence[str], sink: LineSink | None) -> Completed:
        expression = argv[-1]
        if expression == "builtins.attrNames":
            of_homes = any(word.endswith("#homeConfigurations") for word in argv)
            return self._done(argv, json.dumps(self.homes if of_homes else ["db", "web"]))
        request = _request(expression)
        if "options" not in request:
            return self._done(argv, json.dumps({"derivation": self.host.get("derivation")}))
        skipped = set(request["skippedFacts"])
        asked = {".".join(names) for names in request["options"]} | (
            set(self.host["facts"]) - skipped
        )
        if self.broken & (asked | {"machine"}):
            assert sink is not None
            sink(
                "@nix "
                + json.dumps(
                    {"action": "msg", "level": 0, "msg": "error: x", "raw_msg": self.words}
                )
            )
            return self._done(argv, "", 1)
        answers = [{"state": "present", "value": ".".join(names)} for names in request["options"]]
        facts = {name: fact for name, fact in self.host["facts"].items() if name not in skipped}
        return self._done(
            argv,
            json.dumps(
                {**self.host, "facts": facts, "options": answers, "machineOptions": answers}
            ),
        )

    def _done(self, argv: Sequence[str], stdout: str, exit_status: int = 0) -> Completed:
        return Completed(
            argv=tuple(argv),
            exit_status=exit_status,
            stdout=stdout.encode(),
            stderr=b"",
            peak_bytes=self.peak_bytes,
        )


def _request(expression: str) -> dict[str, Any]:
    line = next(line for line in expression.splitlines() if "fromJSON" in line)
    literal = line.partition("fromJSON ")[2].removesuffix(";")
    text = literal[1:-1].replace("\\${", "${").replace('\\"', '"').replace("\\\\", "\\")
    assert nix_quote(text) == literal
    found: dict[str, Any] = json.loads(text)
    return found


def nix(fake: FakeNix, **settings: Any) -> Nix:
    return Nix(runner=fake, settings=NixSettings(**settings))


def flake(fake: FakeNix, *, script: str = "s", **settings: Any) -> Flake:
    """Open the flake anew, as each run does."""
    return Flake(FLAKE, nix(fake, **settings), Instrumentation(channel_script=script))


@pytest.fixture
def cache(tmp_path: Path) -> EvaluationCache:
    return EvaluationCache(directory=tmp_path / "cache")


@pytest.fixture
def instantiated(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "d.drv").write_text("")
    return {**document(), "derivation": str(tmp_path / "d.drv")}


def test_every_flake_command_leaves_the_lock_alone_and_takes_the_settings() -> None:
    fake = FakeNix(
        metadata={
            "locked": {"narHash": "x"},
            "locks": {
                "root": "root",
                "nodes": {"root": {"inputs": {"a": "n"}}, "n": {"locked": {"rev": "1"}}},
            },
        }
    )
    flake(
        fake,
        override_inputs=(("a", "path:/x"),),
        nix_options=(("cores", "2"),),
        impure=True,
        program="/opt/nix",
    ).evaluate("web")
    metadata, evaluation = fake.calls
    shared = ("/opt/nix", "--extra-experimental-features", "nix-command flakes")
    assert metadata == (
        *shared, "flake", "metadata", "--log-format", "internal-json", "--option", "cores", "2",
        "--no-write-lock-file", "--override-input", "a", "path:/x", "--show-trace", "--json", "/f",
    )  # fmt: skip
    assert evaluation[:-1] == (
        *shared, "eval", "--log-format", "internal-json", "--option", "cores", "2",
        "--no-write-lock-file", "--override-input", "a", "path:/x", "--impure",
        "--option", "eval-cache", "false", "--show-trace", "--json", "/f#nixosConfigurations", "--apply",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("version", "installable"),
    [
        ("nix (Nix) 2.8.0", "/nix/store/d.drv"),
        ("nix (Nix) 2.14.1", "/nix/store/d.drv"),
        ("nix (Nix) 2.15.0", "/nix/store/d.drv^*"),
        ("nix (Nix) 2.33pre20260101_abc", "/nix/store/d.drv^*"),
        ("nix (Lix, like Nix) 2.91.1", "/nix/store/d.drv^*"),
        ("nix (Determinate Nix 3.5.2) 2.28.3", "/nix/store/d.drv^*"),
        ("nix", "/nix/store/d.drv^*"),
    ],
)
def test_build_names_the_outputs_as_each_release_wants(
    tmp_path: Path, version: str, installable: str
) -> None:
    fake = FakeNix(version=version)
    root = tmp_path / "roots" / "web"
    assert nix(fake).build("/nix/store/d.drv", gc_root=root) == Path("/nix/store/o")
    assert fake.calls[-1][-4:] == ("--json", "--out-link", str(root), installable)
    assert root.parent.is_dir()


def test_what_is_valid_in_the_store_is_kept_and_not_built(tmp_path: Path) -> None:
    output = tmp_path / "output"
    output.mkdir()
    root = tmp_path / "roots" / "web"
    fake = FakeNix(valid=(str(output),))
    assert nix(fake).build("/d.drv", gc_root=root, output=str(output)) == output
    (call,) = fake.calls
    assert call[:2] == ("nix-store", "--realise")
    assert call[-6:] == ("--option", "substitute", "false", "--add-root", str(root), str(output))


@pytest.mark.parametrize("there", [True, False])
def test_what_is_not_valid_is_built(tmp_path: Path, there: bool) -> None:
    output = tmp_path / "half-built"
    if there:
        output.mkdir()
    fake = FakeNix()
    built = nix(fake).build("/d.drv", gc_root=tmp_path / "r", output=str(output))
    assert built == Path("/nix/store/o")
    assert [call[0] for call in fake.calls] == (["nix-store"] if there else []) + ["nix", "nix"]


def test_builds_ahead_go_on_after_a_failure_and_raise_nothing() -> None:
    fake = FakeNix(exit_status=1)
    nix(fake).build_ahead(["/a.drv", "/b.drv"])
    assert fake.calls[-1][-4:] == ("--no-link", "--keep-going", "/a.drv", "/b.drv")
    nix(FakeNix(timeout=True)).build_ahead(["/a.drv"])


def test_build_tells_its_progress(tmp_path: Path) -> None:
    events = [
        {"action": "start", "id": 1, "type": 104},
        {"action": "result", "id": 1, "type": 105, "fields": [1, 2, 0, 0]},
    ]
    fake = FakeNix(stderr=tuple("@nix " + json.dumps(e) for e in events))
    seen: list[BuildProgress] = []
    nix(fake).build("/nix/store/d.drv", gc_root=tmp_path / "r", on_progress=seen.append)
    assert [describe(progress) for progress in seen] == ["built 1/2"]


def test_a_build_out_of_time(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="still building after 7 s"):
        nix(FakeNix(timeout=True), build_limit_s=7).build("/d.drv", gc_root=tmp_path / "r")


def test_the_failed_derivation_and_its_log_are_told(tmp_path: Path) -> None:
    drv = "/nix/store/k4ndzxvgpsgr1zcwzdvvsy6qgwpdnvn5-dep.drv"
    error = {
        "action": "msg",
        "level": 0,
        "msg": "",
        "raw_msg": f"builder for '{drv}' failed with exit code 3",
    }
    fake = FakeNix(stderr=("@nix " + json.dumps(error),), exit_status=1)
    with pytest.raises(BuildError) as caught:
        nix(fake).build("/nix/store/x.drv", gc_root=tmp_path / "r")
    assert caught.value.derivation == drv
    assert "dep failed to build" in caught.value.message
    assert caught.value.message.endswith("failed with exit code 3")
    assert fake.calls[-1][-2:] == ("log", drv)


def test_an_unchanged_host_is_evaluated_once(
    cache: EvaluationCache, instantiated: dict[str, Any]
) -> None:
    fake = FakeNix(host=instantiated)
    first = flake(fake, cache=cache).evaluate("web", option_paths=["a.b"])
    again = flake(fake, cache=cache).evaluate("web", option_paths=["a.b"])
    assert first == again
    assert len(fake.evaluations()) == 1


def test_whatever_can_change_the_outcome_evaluates_again(
    cache: EvaluationCache, instantiated: dict[str, Any]
) -> None:
    fake = FakeNix(host=instantiated)

    def plain() -> Flake:
        return flake(fake, cache=cache)

    plain().evaluate("web")
    changed: list[Callable[[], object]] = [
        lambda: plain().evaluate("web", option_paths=["a"]),
        lambda: plain().evaluate("web", backend="container"),
        lambda: plain().evaluate("db"),
        lambda: flake(fake, cache=cache, script="other").evaluate("web"),
        lambda: flake(fake, cache=cache, nix_options=(("system", "x"),)).evaluate("web"),
    ]
    for evaluate in changed:
        evaluate()
    fake.version = "nix (Nix) 2.26.3"
    plain().evaluate("web")
    nodes = {"root": {"inputs": {"a": "n"}}, "n": {"locked": {"rev": "1"}}}
    fake.metadata = {**FIXED, "locks": {"root": "root", "nodes": nodes}}
    for ref in ("path:/x", "path:/y"):
        flake(fake, cache=cache, override_inputs=(("a", ref),)).evaluate("web")
    fake.metadata = {**FIXED, "locked": {"narHash": "sha256-y"}}
    plain().evaluate("web")
    assert len(fake.evaluations()) == 1 + len(changed) + 4


@pytest.mark.parametrize(
    ("metadata", "settings"),
    [(LOOSE, {}), (FIXED, {"impure": True}), (FIXED, {"nix_options": (("pure-eval", "false"),)})],
)
def test_what_is_not_fixed_is_never_kept(
    cache: EvaluationCache,
    instantiated: dict[str, Any],
    metadata: Mapping[str, Any],
    settings: dict[str, Any],
) -> None:
    fake = FakeNix(host=instantiated, metadata=metadata)
    for _ in range(2):
        flake(fake, cache=cache, **settings).evaluate("web")
    assert len(fake.evaluations()) == 2
    assert not cache.directory.exists()


def test_a_derivation_that_was_collected_is_made_again(
    cache: EvaluationCache, instantiated: dict[str, Any]
) -> None:
    fake = FakeNix(host=instantiated)
    flake(fake, cache=cache).evaluate("web")
    Path(instantiated["derivation"]).unlink()
    flake(fake, cache=cache).evaluate("web")
    assert len(fake.evaluations()) == 2


def test_what_is_known_needs_no_evaluation(
    cache: EvaluationCache, instantiated: dict[str, Any]
) -> None:
    fake = FakeNix(host=instantiated)
    opened = flake(fake, cache=cache)
    assert opened.known("web", option_paths=["a.b"]) is None
    first = opened.evaluate("web", option_paths=["a.b"])
    fake.calls.clear()
    assert opened.known("web", option_paths=["a.b"]) == first
    assert opened.known("web") is None
    assert fake.calls == []


def test_a_flake_that_changes_while_it_is_evaluated_is_not_kept(
    cache: EvaluationCache, instantiated: dict[str, Any]
) -> None:
    fake = FakeNix(host=instantiated)
    opened = flake(fake, cache=cache)
    assert opened.known("web") is None
    fake.metadata = {**FIXED, "locked": {"narHash": "sha256-edited"}}
    opened.evaluate("web")
    assert not list(cache.directory.glob("*"))


def test_host_names_are_kept_too(cache: EvaluationCache) -> None:
    fake = FakeNix()
    assert [flake(fake, cache=cache).host_names() for _ in range(2)] == [("db", "web")] * 2
    assert len(fake.evaluations()) == 1


def test_generations_are_kept_by_their_delta(
    cache: EvaluationCache, instantiated: dict[str, Any]
) -> None:
    fake = FakeNix(host=instantiated)
    for delta in ("{ a = 1; }", "{ a = 1; }", "{ a = 2; }"):
        drv = flake(fake, cache=cache).instantiate_generation("web", backend="vm", delta=delta)
        assert drv == instantiated["derivation"]
    assert len(fake.evaluations()) == 2


def test_two_threads_that_ask_for_a_generation_evaluate_it_once() -> None:
    begun, go_on = threading.Event(), threading.Event()

    @dataclass
    class SlowNix(FakeNix):
        def _eval(self, argv: Sequence[str], sink: LineSink | None) -> Completed:
            begun.set()
            assert go_on.wait(20)
            return super()._eval(argv, sink)

    fake = SlowNix(metadata=LOOSE)  # of which nothing is kept between runs
    opened = flake(fake)
    found: list[str] = []

    def ask() -> None:
        found.append(opened.instantiate_generation("web", backend="vm", delta="{ a = 1; }"))

    threads = [threading.Thread(target=ask) for _ in range(2)]
    threads[0].start()
    assert begun.wait(20)
    threads[1].start()
    go_on.set()
    for thread in threads:
        thread.join(20)
    assert found == [fake.host["derivation"]] * 2
    assert len(fake.evaluations()) == 1


def test_options_that_break_the_evaluation_are_found_and_named() -> None:
    fake = FakeNix(broken=frozenset({"b.bad", "users"}))
    paths = ["a", "b.bad", "c", "d", "e"]
    host = flake(fake).evaluate("web", option_paths=paths)
    assert {path: host.option(path).state for path in paths} == {
        "a": "present", "b.bad": "unreadable", "c": "present", "d": "present", "e": "present",
    }  # fmt: skip
    assert host.option("e").value == "e"
    assert "users.users" in host.unreadable
    assert host.zram is not None


def test_a_machine_that_does_not_evaluate_is_asked_twice_and_told_once() -> None:
    fake = FakeNix(broken=frozenset({"machine"}))
    with pytest.raises(EvalError, match="/f#web: Nix cannot evaluate this: x"):
        flake(fake).evaluate("web", option_paths=["a"])
    assert len(fake.evaluations()) == 2


def test_failed_assertions_are_told_at_once() -> None:
    fake = FakeNix(broken=frozenset({"machine"}), words="\nFailed assertions:\n- odd")
    with pytest.raises(EvalError, match="Failed assertions:\n- odd"):
        flake(fake).evaluate("web")
    assert len(fake.evaluations()) == 1


def test_a_package_that_nixpkgs_refuses_is_told_at_once() -> None:
    words = "Package \u2018x-1\u2019 in /nix/store/x:1 is marked as broken, refusing to evaluate."
    fake = FakeNix(broken=frozenset({"machine"}), words=words)
    with pytest.raises(EvalError, match="it needs x-1, which nixpkgs marks as broken"):
        flake(fake).evaluate("web")
    assert len(fake.evaluations()) == 1


def test_a_search_without_end_is_cut() -> None:
    paths = [f"o{n}" for n in range(300)]
    fake = FakeNix(broken=frozenset(paths))
    host = flake(fake).evaluate("web", option_paths=paths)
    assert {declared.state for declared in host.options.values()} == {"unreadable"}
    assert (
        len(fake.evaluations()) <= 34
    )  # one for all, 32 of the search, one without what is broken


def test_evaluation_out_of_time_or_killed_is_not_tried_again() -> None:
    late = FakeNix(timeout=True)
    with pytest.raises(EvalInterrupted, match="still evaluating after 5 s"):
        flake(late, evaluation_limit_s=5).evaluate("web")
    killed = FakeNix(exit_status=-9)
    with pytest.raises(EvalInterrupted, match="ended by SIGKILL"):
        flake(killed).evaluate("web")
    assert (len(late.evaluations()), len(killed.evaluations())) == (1, 1)


def test_unknown_host_and_entry_that_is_no_host() -> None:
    fake = FakeNix(host={**document(), "problem": "no-host", "known": ["web-1", "db"]})
    with pytest.raises(FlakeError, match=r"has web-1, db\n  remedy: did you mean /f#web-1\?"):
        flake(fake).evaluate("web")
    fake.homes = ("web", "web-2")
    with pytest.raises(FlakeError, match=r"a home of this name\n.*: /f#homeConfigurations\.web$"):
        flake(fake).evaluate("web")
    with pytest.raises(FlakeError, match=r"did you mean /f#homeConfigurations\.web-2\?"):
        flake(fake).evaluate("web-22")
    fake.host = {**document(), "problem": "no-host", "known": []}
    with pytest.raises(FlakeError, match=r"none, and the homes web, web-2\n"):
        flake(fake).evaluate("db")
    fake.host = {**document(), "problem": "no-extend-modules"}
    with pytest.raises(EvalError, match="no `extendModules`"):
        flake(fake).evaluate("web")


def test_an_override_of_no_input_is_refused() -> None:
    with pytest.raises(
        FlakeError, match="no input 'nixpksg' to override; the flake's inputs: none"
    ):
        flake(FakeNix(), override_inputs=(("nixpksg", "x"),)).evaluate("web")


def test_an_answer_that_is_no_json() -> None:
    fake = FakeNix()
    fake._done = lambda argv, *_: Completed(  # type: ignore[method-assign]
        argv=tuple(argv), exit_status=0, stdout=b"hello", stderr=b""
    )
    with pytest.raises(EvalError, match="other than JSON: 'hello'"):
        _ = flake(fake).metadata


def test_no_nix() -> None:
    class Nothing(FakeNix):
        def run(self, argv: Sequence[str], **_: Any) -> Completed:
            raise ToolMissingError("no", remedy="no")

    with pytest.raises(ToolMissingError, match="install Nix: `apt install nix-bin`"):
        nix(Nothing()).version()


def test_closure() -> None:
    assert nix(FakeNix()).closure(Path("/nix/store/a")) == (
        Path("/nix/store/a"),
        Path("/nix/store/b"),
    )


# What Determinate Nix 3.22 and Nix 2.35 print of a clean git tree: no path, and one that need not
# be there.
LAZY: Mapping[str, Any] = {
    "locked": {
        "lastModified": 1795905021,
        "narHash": "sha256-LXEWQrcmsEQBYnyp+6wy9chTD7GQPMTbAiWHF5IaSIE=",
        "type": "git",
        "url": "file:///srv/infra",
    },
    "locks": FIXED["locks"],
    "url": "git+file:///srv/infra?ref=refs/heads/main&rev=28a3b95d4ec08b56a58d5ec5278295b31bbda556",
}


@pytest.mark.parametrize(
    "metadata", [LAZY, {**LAZY, "path": "/nix/store/whzb4mhi0c85g01a5vmc0v5yqlz3g939-nowhere"}]
)
def test_a_source_that_evaluating_does_not_copy_is_fetched(
    tmp_path: Path, metadata: Mapping[str, Any]
) -> None:
    fake = FakeNix(metadata=metadata, prefetched={"hash": "sha256-x", "storePath": str(tmp_path)})
    opened = flake(fake)
    assert opened.root == tmp_path
    assert opened.source == tmp_path
    (prefetch,) = [call for call in fake.calls if "prefetch" in call]
    assert prefetch[-5:] == ("--option", "flake-registry", "", "--json", LAZY["url"])


def test_a_source_that_is_there_is_not_fetched(tmp_path: Path) -> None:
    fake = FakeNix(metadata={**LAZY, "path": str(tmp_path), "locked": {"dir": "sub"}})
    assert flake(fake).source == tmp_path / "sub"
    assert not [call for call in fake.calls if "prefetch" in call]


def test_a_source_that_cannot_be_fetched_is_an_error() -> None:
    with pytest.raises(FlakeError, match="Nix cannot read this flake"):
        _ = flake(FakeNix(metadata=LAZY)).root


@pytest.mark.parametrize(
    ("version", "asked"),
    [
        ("nix (Nix) 2.26.3", False),
        ("nix (Nix) 2.33.0", True),
        ("nix (Nix) 2.35pre20261101_abc", True),
        ("nix (Determinate Nix 3.22.0) 2.34.1", True),
        ("nix (Lix, like Nix) 2.93.0", False),
    ],
)
def test_the_size_of_a_closure_is_asked_for_as_each_release_wants(
    version: str, asked: bool
) -> None:
    fake = FakeNix(version=version)
    nix(fake).closure_bytes(Path("/nix/store/a"))
    words = fake.calls[-1]
    assert ("--json-format" in words) is asked
    assert not asked or words[words.index("--json-format") + 1] == "1"


@pytest.mark.parametrize(
    "damage",
    [
        {"derivation": 7},
        {"facts": []},
        {"facts": {"firewall": {"readable": True, "value": 7}}},
        {"options": 3},
        {"machineFacts": None},
        {"snapshot": "x"},
        {"system": None, "facts": {"users": {"a": {}}}},
    ],
)
def test_a_kept_document_of_a_wrong_kind_counts_as_absent(
    cache: EvaluationCache, instantiated: dict[str, Any], damage: dict[str, Any]
) -> None:
    fake = FakeNix(host=instantiated)
    flake(fake, cache=cache).evaluate("web")
    for file in cache.directory.glob("*.json"):
        kept = json.loads(file.read_text())
        if "facts" in kept["content"]:
            kept["content"] |= damage
            file.write_text(json.dumps(kept))
    assert flake(fake, cache=cache).known("web") is None
    assert flake(fake, cache=cache).evaluate("web").host_name == "web"
    assert len(fake.evaluations()) == 2


def test_kept_names_of_a_wrong_kind_count_as_absent(cache: EvaluationCache) -> None:
    flake(FakeNix(), cache=cache).host_names()
    (file,) = cache.directory.glob("*.json")
    kept = json.loads(file.read_text())
    file.write_text(json.dumps({**kept, "content": {"names": [1]}}))
    assert flake(FakeNix(), cache=cache).host_names() == ("db", "web")


def test_a_document_that_cannot_be_read_is_an_error_with_a_remedy() -> None:
    fake = FakeNix(host={**document(), "facts": {"firewall": {"readable": True, "value": {}}}})
    fake.host["facts"]["units"] = {}
    with pytest.raises(EvalError, match="cannot be read: KeyError 'enable'"):
        flake(fake).evaluate("web")


def test_a_deep_answer_is_an_error_with_a_remedy() -> None:
    fake = FakeNix()
    fake._done = lambda argv, *_: Completed(  # type: ignore[method-assign]
        argv=tuple(argv), exit_status=0, stdout=b"[" * 100_000, stderr=b""
    )
    with pytest.raises(EvalError, match="nested too deeply"):
        _ = flake(fake).metadata


def test_memory_of_an_evaluation_is_limited_and_measured() -> None:
    fake = FakeNix(peak_bytes=3000 << 20)
    seen: list[int] = []
    flake(fake, evaluation_limit_mib=4096).evaluate("web", measured=seen.append)
    assert seen == [3000]
    (call,) = fake.evaluations()
    assert call[:5] == ("/bin/sh", "-c", 'ulimit -d "$0" && exec "$@"', str(4096 * 1024), "nix")


def test_an_image_is_refused_where_asked_and_known_the_next_time(
    cache: EvaluationCache, instantiated: dict[str, Any]
) -> None:
    fake = FakeNix(host={**instantiated, "problem": "image", "kind": "an ISO image"})
    for _ in range(2):
        with pytest.raises(
            ImageRefused, match="it is an ISO image, no machine that stays"
        ) as caught:
            flake(fake, cache=cache).evaluate("web", refuse_image=True)
        assert caught.value.remedy == "to test it, name it: --nixos-flake '/f#web'"
    assert len(fake.evaluations()) == 1
    assert _request(fake.evaluations()[0][-1])["refuseImage"] is True
    fake.host = {**instantiated, "image": "an ISO image"}
    assert flake(fake, cache=cache).evaluate("web").image == "an ISO image"
    with pytest.raises(ImageRefused):
        flake(fake, cache=cache).evaluate("web", refuse_image=True)
    assert len(fake.evaluations()) == 2


def checks_of(fake: FakeNix) -> int:
    return len([call for call in fake.calls if "check" in call])


def test_a_flake_is_checked_once_for_all_its_hosts_and_a_pass_is_kept(
    cache: EvaluationCache,
) -> None:
    fake = FakeNix()
    opened = flake(fake, cache=cache)
    assert opened.check_answer().succeeded and opened.check_answer().succeeded
    assert checks_of(fake) == 1
    assert flake(fake, cache=cache).check_answer().succeeded
    assert checks_of(fake) == 1


def test_why_a_check_failed_is_asked_again_by_the_next_run(cache: EvaluationCache) -> None:
    fake = FakeNix(exit_status=1)
    opened = flake(fake, cache=cache)
    assert not opened.check_answer().succeeded and not opened.check_answer().succeeded
    assert checks_of(fake) == 1
    fake.exit_status = 0
    assert flake(fake, cache=cache).check_answer().succeeded
    assert checks_of(fake) == 2
