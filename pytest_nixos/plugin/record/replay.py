"""``--nixos-replay``: what a check that needs a machine said is said again; data controls are judged
anew.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self

import pytest

from pytest_nixos.findings import Evidence, Finding, Outcome
from pytest_nixos.place import Place
from pytest_nixos.plugin import collect
from pytest_nixos.plugin.host_failure import shown_once
from pytest_nixos.plugin.not_applicable import not_applicable
from pytest_nixos.plugin.session import NixosSession
from pytest_nixos.plugin.stash import EVIDENCE, SESSION
from pytest_nixos.recording.not_recorded import NotRecorded
from pytest_nixos.standards.control.model import Control
from pytest_nixos.subject import MACHINE

if TYPE_CHECKING:
    from pytest_nixos.recording.observed import Recorded
    from pytest_nixos.recording.recording import RecordedFindings, Recording

__all__ = [
    "REPLAYED",
    "SCANNED",
    "ReplayedCheck",
    "ReplayedItem",
    "as_recorded",
    "reads_closure",
    "recorded_findings",
    "recorded_host",
    "recorded_observations",
    "recorded_places",
]

#: Name of the attachment by which a finding says that it was not judged again.
REPLAYED = "replayed"
#: Name of the attachment that says what of a closure was read.
SCANNED = "what was scanned"
_FINDINGS: pytest.StashKey[dict[str, RecordedFindings]] = pytest.StashKey()
_OBSERVED: pytest.StashKey[dict[str, Recorded]] = pytest.StashKey()


class ReplayedItem(pytest.Item):
    """An item of a recorded host, in the place of the test that a run with machines has.

    ``params`` is what the test is multiplied by, by the fixture's name.
    """

    params: Mapping[str, object]
    _control: Control

    @classmethod
    def of(
        cls, test: pytest.Item, control: Control, *, name: str, params: Mapping[str, object]
    ) -> Self:
        """Make it in place of `test`, with its markers."""
        assert test.parent is not None
        made: Self = cls.from_parent(test.parent, name=name)
        made.own_markers = [*test.own_markers]
        made.keywords.update((marker.name, marker) for marker in test.own_markers)
        made.extra_keyword_matches |= test.extra_keyword_matches
        path, line, where = test.location
        made.location = (path, line, where.removesuffix(test.name) + name)
        made.params = params
        made._control = control
        return made

    @property
    def host_key(self) -> str:
        """Key of the host that it is of."""
        key = collect.host_key_of(self)
        assert key is not None
        return key

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Return where the test itself stands."""
        return self.path, *self.location[1:]

    def refuse_unevaluated(self) -> None:
        """Show why a host did not evaluate when it was recorded, if so.

        :raises HostFailure: then.
        """
        session = self.config.stash[SESSION]
        entry = session.entry(self.host_key)
        if entry.config is None:
            with shown_once(entry):
                session.host_config(self.host_key)


class ReplayedCheck(ReplayedItem):
    """A check of a machine, in a run without one: it ends as it ended when it was recorded."""

    _reads_flake: bool

    @classmethod
    def of(
        cls, test: pytest.Item, control: Control, *, name: str, params: Mapping[str, object]
    ) -> Self:
        made: Self = super().of(test, control, name=name, params=params)
        made._reads_flake = "nixos_flake" in test.fixturenames  # type: ignore[attr-defined]
        return made

    def runtest(self) -> None:
        """Say again what was said.

        :raises NotRecorded: if nobody said anything, or to a control with other parameters.
        """
        session, key = self.config.stash[SESSION], self.host_key
        assert session.recording is not None
        self.refuse_unevaluated()
        recorded = recorded_findings(self.config, session.recording, key)
        finding = recorded.finding(self.nodeid)
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
    recording = request.config.stash[SESSION].recording
    return None if recording is None else recorded_host(request.config, _nixos_host)


def recorded_host(config: pytest.Config, key: str) -> Recorded:
    """Return what was observed of a host; the last one asked for is kept in memory."""
    kept = config.stash.setdefault(_OBSERVED, {})
    if key not in kept:
        kept.clear()
        session = config.stash[SESSION]
        host = session.entry(key).config
        assert session.recording is not None
        assert host is not None
        kept[key] = session.recording.observed(key, host)
    return kept[key]


def recorded_observations(
    recorded: Recorded, control: Control, evidence: Evidence
) -> Mapping[str, object]:
    """Return the observations for one control, and note what of the closure was read for it.

    :raises NotRecorded: if the recording cannot show it what it reads.
    """
    from pytest_nixos.recording.observed import refuse_unrecorded

    refuse_unrecorded(recorded, control)
    if reads_closure(control) and recorded.file.closure is not None:
        evidence.attach(SCANNED, recorded.file.closure.told)
    return recorded.of(control)


def reads_closure(control: Control) -> bool:
    """Whether a control is judged by the files of its host's closure."""
    return control.observed is not None and control.observed.kind == "store-scan"


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
