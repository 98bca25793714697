"""``--nixos-replay``: the items of a recorded host, in the place of those that have a machine."""

from __future__ import annotations

import pytest

from pytest_nixos.findings import Evidence
from pytest_nixos.plugin import collect
from pytest_nixos.plugin.data_controls import end
from pytest_nixos.plugin.replay import (
    ReplayedCheck,
    ReplayedItem,
    recorded_host,
    recorded_observations,
)
from pytest_nixos.plugin.session import NixosSession
from pytest_nixos.plugin.stash import EVIDENCE, SESSION
from pytest_nixos.plugin.suites import DATA_CONTROLS, SuiteModule
from pytest_nixos.standards.judging.judge import judge

__all__ = ["RecordedControl", "replay_items"]


class RecordedControl(ReplayedItem):
    """A data control of a recorded host, without the fixtures by which a run with machines judges it:
    setting these up would take longer than judging.
    """

    #: What the test asks for; nothing of it is set up.
    fixturenames = ("nixos_control", "nixos_judge")

    def setup(self) -> None:
        """Read what was observed of the host.

        :raises HostFailure: if it did not evaluate when it was recorded.
        """
        self.refuse_unevaluated()
        recorded_host(self.config, self.host_key)

    def runtest(self) -> None:
        """Judge the control by it."""
        session, key = self.config.stash[SESSION], self.host_key
        evidence = self.stash[EVIDENCE] = Evidence()
        seen = recorded_observations(recorded_host(self.config, key), self._control, evidence)
        verdict = judge(self._control, session.host_config(key), seen, session.backend_name(key))
        end(verdict, evidence)

    def teardown(self) -> None:
        """Let go of what was observed: its finding has been made."""
        if EVIDENCE in self.stash:
            del self.stash[EVIDENCE]


def replay_items(items: list[pytest.Item], session: NixosSession) -> None:
    """Put into the place of each check that needs more than its host's recording one that says again
    what was said, and in that of each bundled data control one that needs no fixtures; in place.
    """
    if session.recording is None:
        return
    for number, item in enumerate(items):
        control = collect.control_of(item, session)
        if collect.host_key_of(item) is None or control is None:
            continue
        if isinstance(item.parent, SuiteModule) and item.parent.canonical_name == DATA_CONTROLS:
            items[number] = RecordedControl.of(item, control)
        elif "nixos_judge" not in getattr(item, "fixturenames", ()):
            items[number] = ReplayedCheck.of(item, control)
