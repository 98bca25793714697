"""``--nixos-replay``: the items of a recorded host, in the place of those that have a machine."""

from __future__ import annotations

import pytest

from pytest_nixos.errors import NixosError
from pytest_nixos.findings import Evidence
from pytest_nixos.plugin import collect
from pytest_nixos.plugin.judging.data_controls import end
from pytest_nixos.plugin.record.replay import (
    ReplayedCheck,
    ReplayedItem,
    recorded_host,
    recorded_observations,
)
from pytest_nixos.plugin.session import NixosSession
from pytest_nixos.plugin.stash import EVIDENCE, SESSION
from pytest_nixos.plugin.suites import DATA_CONTROLS, SuiteModule, SuitePackages
from pytest_nixos.standards.judging.judge import Verdict, judge

__all__ = ["RecordedControl", "recorded_items", "replay_items"]


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
        """Judge the control by it.

        Plugins keep failures, and with its traceback one would keep all that was observed of the host:
        no frame of it holds that.
        """
        evidence = self.stash[EVIDENCE] = Evidence()
        try:
            verdict = self._judged(evidence)
        except NixosError as err:
            raise err.with_traceback(None) from err.__cause__
        end(verdict, evidence)

    def _judged(self, evidence: Evidence) -> Verdict:
        session, key = self.config.stash[SESSION], self.host_key
        seen = recorded_observations(recorded_host(self.config, key), self._control, evidence)
        return judge(self._control, session.host_config(key), seen, session.backend_name(key))

    def teardown(self) -> None:
        """Let go of what was observed: its finding has been made."""
        if EVIDENCE in self.stash:
            del self.stash[EVIDENCE]


def recorded_items(
    module: pytest.Module | pytest.Class,
    name: str,
    obj: object,
    session: NixosSession,
    packages: SuitePackages,
) -> list[ReplayedItem] | None:
    """Make the items of a bundled test for all recorded hosts; ``None`` where pytest shall make them.

    An item with fixtures for each host would take most of a large replay's time and memory.

    :param name: of `obj` in the module.
    """
    replays = session.recording is not None and not module.config.option.collectonly
    if not replays or not isinstance(module, SuiteModule) or not module.is_bundled:
        return None
    if not module.istestfunction(obj, name):
        return None
    test = pytest.Function.from_parent(module, name=name, callobj=obj)
    keys = collect.hosts_of(test, session, packages)
    if collect.HOST_PARAM not in test.fixturenames or not keys:
        return None
    if module.canonical_name == DATA_CONTROLS:
        controls = [control for control in session.controls if not control.check]
        return [
            RecordedControl.of(
                test,
                control,
                name=f"{name}[{key}-{control.id}]",
                params={collect.HOST_PARAM: key, collect.CONTROL_FIXTURE: control},
            )
            for key in keys
            for control in controls
        ]
    try:
        control = collect.control_of(test, session)
    except NixosError:
        return None  # told when items are selected
    if control is None:
        return None
    return [
        ReplayedCheck.of(test, control, name=f"{name}[{key}]", params={collect.HOST_PARAM: key})
        for key in keys
    ]


def replay_items(items: list[pytest.Item], session: NixosSession) -> None:
    """Put into the place of each check that needs more than its host's recording one that says again
    what was said; in place.
    """
    if session.recording is None:
        return
    for number, item in enumerate(items):
        if not isinstance(item, pytest.Function) or "nixos_judge" in item.fixturenames:
            continue
        control = collect.control_of(item, session)
        if control is not None and collect.host_key_of(item) is not None:
            params = item.callspec.params
            items[number] = ReplayedCheck.of(item, control, name=item.name, params=params)
