"""How much memory evaluations take: measured, and remembered by host."""

from __future__ import annotations

from pytest_nixos.nix.command.cache import EvaluationCache, evaluation_key
from pytest_nixos.nix.command.refs import HostRef

__all__ = ["UNKNOWN_MIB", "EvaluationMemory"]

#: What an evaluation is taken to need before one was measured: of 16 public hosts on nixpkgs 24.05,
#: the largest took 7.6 GiB.
UNKNOWN_MIB = 7800


class EvaluationMemory:
    """What evaluations of hosts took, in this run and in earlier ones.

    It is remembered by host and not by its content: a change of the flake changes it little.

    :param cache: where it is kept between runs, ``None`` for nowhere.
    """

    def __init__(self, cache: EvaluationCache | None) -> None:
        self._cache = cache
        self._taken_mib: dict[HostRef, int] = {}

    def remembered_mib(self, host: HostRef) -> int | None:
        """Return what evaluating this host took, in MiB; ``None`` if nobody has measured it."""
        if host not in self._taken_mib and self._cache is not None:
            found = (self._cache.get(_key(host)) or {}).get("mib")
            if isinstance(found, int) and not isinstance(found, bool) and found > 0:
                self._taken_mib[host] = found
        return self._taken_mib.get(host)

    def estimated_mib(self, host: HostRef) -> int:
        """Return what evaluating this host probably takes, in MiB: as measured, else as the
        largest of its flake.
        """
        own = self.remembered_mib(host)
        if own is not None:
            return own
        others = [mib for other, mib in self._taken_mib.items() if other.flake == host.flake]
        return max(others, default=UNKNOWN_MIB)

    def take(self, host: HostRef, mib: int) -> None:
        """Remember what an evaluation took; of several, as in the search for what breaks one,
        the most.
        """
        self._taken_mib[host] = max(mib, self._taken_mib.get(host, 0))
        if self._cache is not None:
            self._cache.put(_key(host), {"mib": self._taken_mib[host]})


def _key(host: HostRef) -> str:
    return evaluation_key({"kind": "memory", "host": str(host)})
