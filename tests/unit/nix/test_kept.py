from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from pytest_nixos.nix.command.cache import EvaluationCache
from pytest_nixos.nix.failure.evaluation import ImageRefused
from pytest_nixos.nix.flake import Flake
from tests.unit.host_documents import document
from tests.unit.nix.fake_nix import FIXED, LOOSE, FakeNix, flake, request_of


@pytest.fixture
def cache(tmp_path: Path) -> EvaluationCache:
    return EvaluationCache(directory=tmp_path / "cache")


@pytest.fixture
def instantiated(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "d.drv").write_text("")
    return {**document(), "derivation": str(tmp_path / "d.drv")}


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
    assert request_of(fake.evaluations()[0][-1])["refuseImage"] is True
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
