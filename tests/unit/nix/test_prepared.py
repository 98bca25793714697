"""Prepared hosts: what is read, what is refused, what only Nix could tell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pytest_nixos.errors import SettingsError
from pytest_nixos.nix.building.store import Nix
from pytest_nixos.nix.expression import Instrumentation
from pytest_nixos.nix.prepared import NotPrepared, PreparedFlakes, read_prepared
from tests.support.runner import FakeRunner
from tests.unit.host_documents import document

OPTIONS = ("services.openssh.enable", "time.timeZone")


def prepare(directory: Path, **changes: Any) -> Path:
    closure = directory / "closure"
    closure.mkdir(parents=True, exist_ok=True)
    (closure / "registration").write_text("/nix/store/a\nsha256:00\n10\n\n0\n")
    known = document()
    known["options"] = known["machineOptions"] = [
        {"state": "present", "value": True},
        {"state": "absent"},
    ]
    prepared = {
        "format": 3,
        "flake": "self",
        "host": "web",
        "options": list(OPTIONS),
        "machines": [
            {
                "backend": "vm",
                "document": str(directory / "document.json"),
                "package": "/nix/store/a",
            }
        ],
        "closure": str(closure),
        "source": None,
        "generations": [],
        **changes,
    }
    (directory / "document.json").write_text(json.dumps(known))
    (directory / "prepared.json").write_text(json.dumps(prepared))
    return directory


def opened(*directories: Path) -> PreparedFlakes:
    nix = Nix(runner=FakeRunner(AssertionError("Nix was called")))
    instrumentation = Instrumentation(channel_script="")
    return PreparedFlakes(nix, instrumentation, [read_prepared(d) for d in directories])


def test_a_host_answers_the_options_that_are_asked(tmp_path: Path) -> None:
    flakes = opened(prepare(tmp_path))
    (ref,) = flakes.refs
    host = flakes.of(ref.flake).evaluate("web", option_paths=("time.timeZone", OPTIONS[0]))
    assert str(host.ref) == "self#web"
    assert host.options[OPTIONS[0]].value is True
    assert flakes.of(ref.flake).build(host, gc_root=tmp_path / "root") == Path("/nix/store/a")
    assert flakes.nix.closure(Path("/nix/store/a")) == (Path("/nix/store/a"),)
    assert flakes.nix.closure_bytes(Path("/nix/store/a")) == 10
    assert flakes.nix.dump_database([Path("/nix/store/a")]).startswith(b"/nix/store/a\nsha256:00")


def test_what_only_nix_could_tell_is_not_there(tmp_path: Path) -> None:
    flakes = opened(prepare(tmp_path))
    flake = flakes.of(flakes.refs[0].flake)
    with pytest.raises(NotPrepared, match=r"option networking.x was not asked"):
        flake.evaluate("web", option_paths=("networking.x",))
    with pytest.raises(NotPrepared, match="prepared for the backend vm, not container"):
        flake.evaluate("web", backend="container")
    with pytest.raises(NotPrepared, match="no Nix in this run"):
        flake.instantiate_generation("web", backend="vm", delta="{ }")
    with pytest.raises(NotPrepared, match="no Nix in this run"):
        flake.check_answer()
    with pytest.raises(NotPrepared, match="without its flake"):
        _ = flake.source
    with pytest.raises(NotPrepared, match="other hosts"):
        flake.hosts()
    with pytest.raises(NotPrepared, match="'db' was not prepared"):
        flake.evaluate("db")


def test_a_generation_that_was_built_beforehand_is_there_by_its_text(tmp_path: Path) -> None:
    known = [{"backend": "vm", "module": "{ a = 1; }", "toplevel": "/nix/store/a"}]
    flakes = opened(prepare(tmp_path, generations=known))
    flake = flakes.of(flakes.refs[0].flake)
    found = flake.instantiate_generation("web", backend="vm", delta="{ a = 1; }")
    assert flakes.nix.build(found, gc_root=tmp_path / "root") == Path("/nix/store/a")
    for name, delta in (("web", "{ a = 2; }"), ("db", "{ a = 1; }")):
        with pytest.raises(NotPrepared, match="this generation was not built beforehand"):
            flake.instantiate_generation(name, backend="vm", delta=delta)


def test_the_source_of_the_flake_is_read_where_it_was_given(tmp_path: Path) -> None:
    flakes = opened(prepare(tmp_path, source="/nix/store/source"))
    assert flakes.of(flakes.refs[0].flake).source == Path("/nix/store/source")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": 9}, "format 9, this release reads 3"),
        ({"machines": None}, "is damaged: TypeError"),
        ({"machines": [{"backend": "vm"}]}, "is damaged: KeyError 'document'"),
        (
            {"machines": [{"backend": "vm", "document": "/none", "package": "/a"}]},
            "no prepared host: No such file or directory: /none",
        ),
    ],
)
def test_a_file_of_another_kind_is_refused(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(SettingsError, match=words):
        read_prepared(prepare(tmp_path, **changes))


def test_a_directory_without_a_prepared_host_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no prepared host: No such file"):
        read_prepared(tmp_path)
    (tmp_path / "prepared.json").write_text("{")
    with pytest.raises(SettingsError, match="is damaged"):
        read_prepared(tmp_path)


def test_a_registration_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    prepare(tmp_path)
    (tmp_path / "closure" / "registration").write_text("/nix/store/a\n")
    with pytest.raises(SettingsError, match="registration: cannot be read"):
        opened(tmp_path)


def test_two_hosts_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="a host is there twice"):
        opened(prepare(tmp_path / "a"), prepare(tmp_path / "b"))
