"""Pictures of the screens of VMs with a desktop, for the HTML report."""

from __future__ import annotations

import base64
from collections.abc import Generator

import pytest

from pytest_nixos.errors import NixosError
from pytest_nixos.machine.base import Machine
from pytest_nixos.machine.capabilities import Displayed
from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.plugin import collect
from pytest_nixos.plugin.record.journal import machine_of
from pytest_nixos.plugin.session import HostEntry
from pytest_nixos.plugin.stash import SESSION

__all__ = ["ScreensOfFailures", "has_desktop", "keep_screen"]

_MOST_A_HOST = 6
_MOST_BYTES = 256 << 10
# nixpkgs services/display-managers: one unit for all of them, but greetd has its own; cage is none.
_DESKTOPS = frozenset({"display-manager.service", "greetd.service", "cage-tty1.service"})


def has_desktop(config: HostConfig) -> bool:
    """Whether a host declares something that shows more than a text console."""
    return any(unit.enabled for name in _DESKTOPS if (unit := config.units.get(name)) is not None)


def keep_screen(entry: HostEntry, machine: Machine, when: str) -> str:
    """Keep a picture of a machine's screen for the report, unless the host has enough or the same.

    :param when: it was taken, for people.
    :return: why none was kept, ``""`` where one was.
    """
    if not isinstance(machine.running, Displayed):
        return f"a {machine.backend.name.place} has no screen"
    if len(entry.screens) >= _MOST_A_HOST:
        return f"the report has {_MOST_A_HOST} pictures of this host"
    try:
        picture = machine.screen().png_of_at_most(_MOST_BYTES)
    except NixosError as err:
        return err.message
    text = base64.b64encode(picture).decode()
    if not picture or any(screen["png"] == text for screen in entry.screens):
        return "the report has this picture" if picture else "the picture is too large"
    entry.screens.append({"when": when, "png": text})
    return ""


class ScreensOfFailures:
    """Keeps what the screen of a VM with a desktop shows when a test of it fails."""

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Look while the machine still runs; what a control without a test reads changes nothing on
        the screen.
        """
        report = yield
        key = collect.host_key_of(item)
        if key is None or report.when != "call" or not report.failed:
            return report
        session = item.config.stash[SESSION]
        control = collect.control_of(item, session)
        entry, machine = session.entry(key), machine_of(item)
        if (
            machine is not None
            and entry.config is not None
            and has_desktop(entry.config)
            and not (control is not None and control.is_data)
        ):
            keep_screen(entry, machine, f"when {item.name} failed")
        return report
