"""What the controls of a profile say of a host that is evaluated and not started."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_nixos.backend_name import BackendName
from pytest_nixos.findings import Outcome
from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.nix.evaluate import Measured
from pytest_nixos.nix.flake import Flake
from pytest_nixos.plugin.evaluate import FURTHER_OPTIONS
from pytest_nixos.standards.control.model import Control
from pytest_nixos.standards.judging.applicability import inapplicable
from pytest_nixos.standards.judging.judge import Verdict, judge
from pytest_nixos.standards.judging.look import host_observations
from pytest_nixos.standards.judging.remedy import remedy_text
from pytest_nixos.standards.kinds import KINDS
from pytest_nixos.standards.load import load_catalogue, option_paths
from pytest_nixos.standards.profile import load_profiles, select_controls
from pytest_nixos.standards.sources.flake_files import read_flake

__all__ = ["Judged", "controls_of", "evaluated", "judged"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One verdict, and the remedy of a finding (``""`` of a control that holds)."""

    verdict: Verdict
    remedy: str

    @property
    def failed(self) -> bool:
        """Whether it is a finding."""
        return self.verdict.outcome is Outcome.FAILED


def controls_of(profile: str) -> tuple[Control, ...]:
    """Return the controls of a bundled profile."""
    catalogue = load_catalogue()
    return select_controls([profile], load_profiles(catalogue), catalogue)


def asked_options(controls: Sequence[Control]) -> tuple[str, ...]:
    """Return the options that a run with these controls asks for."""
    return tuple(dict.fromkeys((*option_paths(controls), *FURTHER_OPTIONS)))


def evaluated(
    flake: Flake,
    name: str,
    controls: Sequence[Control],
    *,
    measured: Measured = lambda _: None,
) -> HostConfig:
    """Evaluate one host as a run with these controls does.

    :param measured: told how much memory it took, in MiB.
    """
    return flake.evaluate(name, option_paths=asked_options(controls), measured=measured)


def judged(host: HostConfig, controls: Sequence[Control], source: Path) -> Iterator[Judged]:
    """Judge what the evaluated config and the flake's own files decide.

    :param source: directory of ``flake.nix``.
    """
    place = BackendName(host.backend)
    today = dt.datetime.now(tz=dt.UTC).date()
    seen = host_observations(today=today, flake=read_flake(source))
    for control in controls:
        if _is_of_config(control, host, place):
            verdict = judge(control, host, seen, place)
            failed = verdict.outcome is Outcome.FAILED
            yield Judged(
                verdict=verdict,
                remedy=remedy_text(
                    control, host, observed=verdict.observed, reason=verdict.reason, today=today
                )
                if failed
                else "",
            )


def _is_of_config(control: Control, host: HostConfig, place: BackendName) -> bool:
    if not control.is_data or inapplicable(control, host, place) is not None:
        return False
    if control.observed is None or place in control.falsified_in:
        return True
    return KINDS[control.observed.kind].host_side and control.observed.kind != "store-scan"
