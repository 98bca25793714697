"""What a session refuses about its hosts' machines."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from pytest_nixos.backend_name import BackendName
from pytest_nixos.errors import MachineError
from pytest_nixos.nix.command.refs import FlakeRef, HostRef
from pytest_nixos.nix.schedule import Evaluated, Question
from pytest_nixos.plugin.session import HostEntry, NixosSession
from tests.unit.standards.samples import host_config


@pytest.mark.parametrize("backend", [BackendName.CONTAINER, BackendName.SSH])
def test_boot_loader_where_there_is_none(backend: BackendName) -> None:
    session = NixosSession(
        settings=SimpleNamespace(backend=backend),  # type: ignore[arg-type]
        flakes=SimpleNamespace(),  # type: ignore[arg-type]
        question=Question(backend="auto", option_paths=()),
        catalogue=SimpleNamespace(),  # type: ignore[arg-type]
        controls=(),
        waivers=(),
        entries=[HostEntry(key="web", ref=HostRef(FlakeRef("path:/srv"), "web"))],
    )
    with pytest.raises(
        MachineError, match=f"the {backend.value} backend has no boot loader"
    ) as caught:
        session.boot_loader_config("web")
    assert "--nixos-backend vm" in caught.value.remedy


@pytest.mark.parametrize("derivation", ["/nix/store/a.drv", "/nix/store/b.drv"])
def test_a_session_from_another_machine_is_evaluated_again_and_held_against_it(
    derivation: str,
) -> None:
    ref = HostRef(FlakeRef("path:/srv"), "web")
    entry = HostEntry(key="web", ref=ref, config=host_config(derivation="/nix/store/a.drv"))
    forgotten: list[bool] = []
    session = NixosSession(
        settings=SimpleNamespace(),  # type: ignore[arg-type]
        flakes=SimpleNamespace(forget=lambda: forgotten.append(True)),  # type: ignore[arg-type]
        question=Question(backend="auto", option_paths=()),
        catalogue=SimpleNamespace(),  # type: ignore[arg-type]
        controls=(),
        waivers=(),
        entries=[entry],
    )
    session.came_from_elsewhere()
    assert entry.config is None
    assert forgotten
    entry.take(Evaluated(config=host_config(derivation=derivation), failure=None, duration_s=1.0))
    same = derivation == "/nix/store/a.drv"
    assert (entry.config is not None) is same
    assert (entry.failure is None) is same
