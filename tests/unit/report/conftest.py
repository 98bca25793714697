"""A real browser for the pages: Debian's Chromium, driven by playwright, where both are there."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if (chromium := shutil.which("chromium")) is None:
        pytest.skip("no chromium on this machine: apt-get install chromium")
    with contextlib.ExitStack() as stack:
        try:
            playwright = stack.enter_context(sync_api.sync_playwright())
        except Exception as err:  # noqa: BLE001 - playwright raises no narrower one
            pytest.skip(f"playwright's driver does not start ({err}): apt-get install libatomic1")
        started = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield started
        started.close()
