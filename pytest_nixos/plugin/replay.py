"""``--nixos-replay``: what a check that needs a machine said is said again; data controls are judged
anew.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from pytest_nixos.findings import Evidence, Finding, Outcome
from pytest_nixos.place import Place
from pytest_nixos.plugin import collect
from pytest_nixos.plugin.host_failure import shown_once
from pytest_nixos.plugin.not_applicable import not_applicable
from pytest_nixos.plugin.session import NixosSession
from pytest_nixos.plugin.stash import EVIDENCE, SESSION
from pytest_nixos.recording.not_recorded import NotRecorded
from pytest_nixos.standards.model import Control
from pytest_nixos.subject import MACHINE

if TYPE_CHECKING:
    from pytest_nixos.recording.observed import Recorded
    from pytest_nixos.recording.recording import RecordedFindings, Recording

__all__ = [
    "REPLAYED",
    "ReplayedCheck",
    "as_recorded",
    "recorded_findings",
    "recorded_observations",
    "recorded_places",
    "replay_checks",
]

#: Name of the attachment by which a finding says that it was not judged again.
REPLAYED = "replayed"
_FINDINGS: pytest.StashKey[dict[str, RecordedFindings]] = pytest.StashKey()


class ReplayedCheck(pytest.Item):
    """A check of a machine, in a run without one: it ends as it ended when it was recorded."""

    @classmethod
    def of(cls, item: pytest.Item, control: Control) -> ReplayedCheck:
        """Make it in place of `item`, with its name, markers and parameters."""
        assert item.parent is not None
        made: ReplayedCheck = cls.from_parent(item.parent, name=item.name)
        made.own_markers = item.own_markers
        made.extra_keyword_matches |= item.extra_keyword_matches
        made.callspec = getattr(item, "callspec", None)
        made._place = item.location
        made._control = control
        made._reads_flake = "nixos_flake" in item.fixturenames  # type: ignore[attr-defined]
        return made

    callspec: Any
    _place: tuple[str, int | None, str]
    _control: Control
    _reads_flake: bool

    def reportinfo(self) -> tuple[str, int | None, str]:
        """Return where the check itself stands."""
        return self._place

    def runtest(self) -> None:
        """Say again what was said.

        :raises NotRecorded: if nobody said anything, or to a control with other parameters.
        """
        session, key = self.config.stash[SESSION], collect.host_key_of(self)
        assert session.recording is not None
        assert key is not None
        entry = session.entry(key)
        if entry.config is None:
            with shown_once(entry):
                session.host_config(key)
        recorded = recorded_findings(self.config, session.recording, key)
        finding = recorded.by_node.get(self.nodeid)
        if finding is None:
            raise NotRecorded(f"{self._what}, which the recorded run did not make")
        if finding.control != self._control.id:
            raise NotRecorded(f"{self._what}, which judged {finding.control} when it was recorded")
        if recorded.parameters.get(self._control.id) != dict(self._control.parameters()):
            raise NotRecorded(f"{self._what}, which was recorded with other parameters")
        self.stash[EVIDENCE] = _evidence(
            finding, self._control, session.recording, reads_flake=self._reads_flake
        )
        _end(*recorded.verdict(self.nodeid))

    @property
    def _what(self) -> str:
        """What a replay cannot do again."""
        return f"a check of the {'flake' if self._reads_flake else 'machine'}"

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException]) -> Any:  # type: ignore[override]
        """Show the reason alone: there is no code that failed."""
        return super().repr_failure(excinfo, style="value")


def replay_checks(items: list[pytest.Item], session: NixosSession) -> None:
    """Put a :class:`ReplayedCheck` in the place of each check that needs more than its host's
    recording; in place.
    """
    if session.recording is None:
        return
    for number, item in enumerate(items):
        control = collect.control_of(item, session)
        judged_anew = "nixos_judge" in getattr(item, "fixturenames", ())
        if collect.host_key_of(item) is not None and control is not None and not judged_anew:
            items[number] = ReplayedCheck.of(item, control)


def as_recorded(finding: Finding, item: pytest.Item, recording: Recording) -> Finding:
    """Return the finding of a replayed check with what only the machine's own time could tell."""
    if not isinstance(item, ReplayedCheck) or not finding.failed:
        return finding
    recorded = recorded_findings(item.config, recording, finding.host)
    before = recorded.of(finding.node_id, finding.control)
    if before is None:
        return finding
    return dataclasses.replace(finding, journal=before.journal, pressure=before.pressure)


def recorded_places(
    item: pytest.Item, control: Control, session: NixosSession, key: str
) -> tuple[Place, ...]:
    """Return where stood what decided an item's control when it was recorded; nothing elsewhere."""
    if session.recording is None:
        return ()
    before = recorded_findings(item.config, session.recording, key).of(item.nodeid, control.id)
    return () if before is None else before.places


def recorded_findings(config: pytest.Config, recording: Recording, key: str) -> RecordedFindings:
    """Return what was said of a host; the last one asked for is kept in memory."""
    kept = config.stash.setdefault(_FINDINGS, {})
    if key not in kept:
        kept.clear()
        kept[key] = recording.findings(key)
    return kept[key]


@pytest.fixture(scope="session")
def _nixos_recorded(request: pytest.FixtureRequest, _nixos_host: str) -> Recorded | None:
    """What was observed of the host when it was recorded; ``None`` in any other run."""
    session = request.config.stash[SESSION]
    if session.recording is None:
        return None
    entry = session.entry(_nixos_host)
    assert entry.config is not None
    return session.recording.observed(_nixos_host, entry.config)


def recorded_observations(recorded: Recorded, control: Control) -> Mapping[str, object]:
    """Return the observations for one control.

    :raises NotRecorded: if the recording cannot show it what it reads.
    """
    from pytest_nixos.recording.observed import refuse_unrecorded

    refuse_unrecorded(recorded, control)
    return recorded.of(control)


def _evidence(
    finding: Finding, control: Control, recording: Recording, *, reads_flake: bool
) -> Evidence:
    """Return what a finding rested on; what is the control's own is added by whoever makes one."""
    lacks = f"a replay has no {'flake' if reads_flake else 'machine'} to judge it on again"
    return Evidence(
        expected=finding.expected,
        observed=finding.observed,
        judged_on=finding.judged_on if finding.judged_on != "nothing" else "",
        attachments={
            **finding.attachments,
            REPLAYED: f"{recording.told}; {lacks}",
        },
        rests_on=[subject for subject in finding.rests_on if subject is not MACHINE],
        blames=[subject for subject in finding.blames if subject not in control.blames],
        remedy=finding.remedy,
    )


def _end(outcome: Outcome, reason: str) -> None:
    match outcome:
        case Outcome.FAILED:
            pytest.fail(reason, pytrace=False)
        case Outcome.NOT_APPLICABLE:
            not_applicable(reason)
        case Outcome.WAIVED:
            # What a waiver of the recorded run covered; those of the replay speak for themselves.
            _not_judged("not judged: the recording says that it was waived, and not what was")
        case Outcome.ERROR:
            _not_judged(reason)
        case Outcome.PASSED:
            pass


def _not_judged(reason: str) -> NoReturn:
    error = NotRecorded(reason)
    error.message, error.args = reason, (reason,)
    raise error
