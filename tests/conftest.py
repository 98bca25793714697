"""For all tests: what else runs on this machine is not theirs."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_nixos.local.remove_tree import remove_tree


@pytest.fixture(scope="session", autouse=True)
def own_temporary_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Give these tests a ``TMPDIR`` of their own, each of several workers too: many look at what a
    run leaves there, and a machine is listed and swept by what lies there.
    """
    tmp_path_factory.getbasetemp()  # stays where it is: what a failed test wrote outlives the run
    path = tempfile.mkdtemp(prefix="own-")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", path)
        patch.setattr(tempfile, "tempdir", path)
        yield
    remove_tree(Path(path))


@pytest.fixture(scope="module", autouse=True)
def room_given_back(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Remove what a file of passed tests wrote for all of them: snapshots take gigabytes."""
    base = tmp_path_factory.getbasetemp()
    before, failed = set(base.iterdir()), request.session.testsfailed
    yield
    if request.session.testsfailed == failed:
        for path in set(base.iterdir()) - before:
            if path.is_dir() and not path.is_symlink():
                remove_tree(path)
            else:
                path.unlink()
