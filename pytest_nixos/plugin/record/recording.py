"""``--nixos-record``: what is noted of each host while its controls are judged."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.plugin.stash import SESSION

if TYPE_CHECKING:
    from pytest_nixos.recording.notes import HostNotes

__all__: list[str] = []


@pytest.fixture(scope="session")
def _nixos_notes(
    request: pytest.FixtureRequest, _nixos_host: str, nixos_host_config: HostConfig
) -> Iterator[HostNotes | None]:
    """What is kept of the host; ``None`` where nothing is recorded. Written when its tests are over."""
    session = request.config.stash[SESSION]
    directory = session.settings.record
    if directory is None:
        yield None
        return
    from pytest_nixos.recording.files import folder_of, write_file
    from pytest_nixos.recording.notes import HostNotes
    from pytest_nixos.recording.recording import OBSERVED

    notes = HostNotes(
        nixos_host_config,
        session.backend_name(_nixos_host),
        session.observed_controls,
        today=dt.datetime.now(tz=dt.UTC).date(),
    )
    yield notes
    write_file(directory / folder_of(_nixos_host) / OBSERVED, notes.file())
