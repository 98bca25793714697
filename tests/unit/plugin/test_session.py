"""What a session refuses about its hosts' machines."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from pytest_nixos.backend_name import BackendName
from pytest_nixos.errors import MachineError
from pytest_nixos.nix.refs import FlakeRef, HostRef
from pytest_nixos.nix.schedule import Question
from pytest_nixos.plugin.session import HostEntry, NixosSession


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
