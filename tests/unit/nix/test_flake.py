from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from pytest_nixos.errors import EvalError, FlakeError
from pytest_nixos.local.process import Completed, LineSink
from pytest_nixos.nix.failure.evaluation import EvalInterrupted
from tests.unit.host_documents import document, fact
from tests.unit.nix.fake_nix import FIXED, LOOSE, FakeNix, flake


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


def test_a_warning_names_a_file_as_it_stands_in_the_flake() -> None:
    said = "The option `a' defined in `{}/hosts/web.nix' has been renamed to `b'."
    source = f"/nix/store/{'k' * 32}-source"
    host = document()
    host["facts"] = {**host["facts"], "warnings": fact([said.format(source)])}
    opened = flake(FakeNix(metadata={**FIXED, "path": source}, host=host))
    assert opened.evaluate("web").warnings == (said.format("").replace("/hosts", "hosts"),)
    # What is kept is told in the same way.
    assert opened.evaluate("web").warnings == (said.format("").replace("/hosts", "hosts"),)


def test_what_a_flake_is_is_asked_ahead_and_once() -> None:
    fake = FakeNix()
    opened = flake(fake, program="/opt/nix")
    opened.ask_ahead()
    assert opened.nix.version() == opened.nix.version() == fake.version
    opened.evaluate("web")
    for question in ("metadata", "--version"):
        assert len([call for call in fake.calls if question in call]) == 1


def test_a_flake_that_is_not_there_is_told_to_who_wants_it() -> None:
    class NoFlake(FakeNix):
        def _play(self, argv: Sequence[str], on_stderr_line: LineSink | None) -> Completed:
            done = super()._play(argv, on_stderr_line)
            return replace(done, exit_status=1) if "metadata" in argv else done

    opened = flake(NoFlake())
    opened.ask_ahead()
    with pytest.raises(FlakeError):
        opened.metadata  # noqa: B018 - reading it asks


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
