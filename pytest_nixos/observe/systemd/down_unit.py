"""Which units are down for want of something: a mount, a secret, what an activation should have
made.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.observe.filesystems.file import files
from pytest_nixos.observe.store import Observations
from pytest_nixos.observe.systemd.journal import journal
from pytest_nixos.observe.systemd.unit import failed_units, units

__all__ = ["DownUnit", "down_units", "missing_secrets", "secrets_among"]

#: systemd.exec(5), exit statuses of a unit whose account or group is not there: GROUP, USER.
_NO_ACCOUNT = frozenset({"216", "217"})
_SECRET = re.compile(r"/run/(?:secrets(?:-for-users)?|agenix|keys)(?:\.d)?/[\w./@-]*\w")
_MOST_JOURNALS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class DownUnit:
    """One declared unit that is not running.

    :param needs: absolute paths that its unit file names.
    :param said: its journal, of failed units.
    """

    name: str
    needs: frozenset[str]
    said: str
    failed: bool
    lacks_its_account: bool

    def names(self, path: str) -> bool:
        """Whether it, or its journal, names `path` or something below it."""
        below = re.compile(rf"{re.escape(path.rstrip('/'))}(?![\w.-])")
        own = any(f"{need}/".startswith(f"{path.rstrip('/')}/") for need in self.needs)
        return own or below.search(self.said) is not None

    @property
    def secrets(self) -> frozenset[str]:
        """Files of decrypted secrets that it, or its journal, names."""
        return secrets_among(self.needs) | frozenset(_SECRET.findall(self.said))


def down_units(host: HostConfig, observations: Observations) -> Mapping[str, DownUnit]:
    """Return the units that have failed, or that something wants and that do not run."""
    failed = observations.of(failed_units()) or ()
    wanted = [name for name, unit in host.units.items() if unit.enabled and unit.wanted_by]
    states = observations.of(
        units(sorted({*failed, *wanted}), properties=["ExecMainStatus"], name="down-for-want")
    )
    down = [n for n, state in states.items() if n in failed or not state.is_running]
    journals = {name: "\n".join(observations.of(journal(name))) for name in failed[:_MOST_JOURNALS]}
    return {
        name: DownUnit(
            name=name,
            needs=host.units[name].needed_paths if name in host.units else frozenset(),
            said=journals.get(name, ""),
            failed=name in failed,
            lacks_its_account=states[name].get("ExecMainStatus") in _NO_ACCOUNT,
        )
        for name in down
    }


def secrets_among(paths: Iterable[str]) -> frozenset[str]:
    """Return the paths at which sops-nix, agenix and their kin put decrypted secrets."""
    return frozenset(path for path in paths if _SECRET.fullmatch(path))


def missing_secrets(named: Iterable[str], observations: Observations) -> Sequence[str]:
    """Return those of the files `named` that are not there."""
    wanted = sorted(set(named))
    if not wanted:
        return []
    found = observations.of(files(wanted, name="secrets-that-are-named"))
    return [path for path in wanted if path in found and not found[path]]
