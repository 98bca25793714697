"""What one run of a watched session leaves to the next: what was judged and failed, and what each
host was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from pytest_nixos.nix.config.host_facts import HostConfig

__all__ = ["VARIABLE", "Before", "HostPrint", "WatchNotes"]

#: Tells a run that it is one of a watched session, and where its notes lie.
VARIABLE = "PYTEST_NIXOS_WATCH"

_BEFORE, _AFTER, _CHANGED = "before.json", "after.json", "changed.json"


class HostPrint(msgspec.Struct, frozen=True, kw_only=True):
    """What a host declares and what its machine is made of, as digests.

    :param options: digest by option path that controls read.
    :param rest: digest of everything else; not of where it is written, which a comment moves.
    """

    options: Mapping[str, str]
    rest: str

    @classmethod
    def of(cls, host: HostConfig) -> HostPrint:
        """Take the digests of an evaluated host."""
        return cls(
            options={path: _digest(declared) for path, declared in host.options.items()},
            rest=_digest(msgspec.structs.replace(host, options={}, where={})),
        )

    def changed_options(self, before: HostPrint) -> set[str]:
        """Return the option paths whose value is another than before."""
        paths = {*self.options, *before.options}
        return {path for path in paths if self.options.get(path) != before.options.get(path)}


class Before(msgspec.Struct, frozen=True, kw_only=True):
    """What the runs before this one left.

    :param judged: node ids of the items whose outcome still stands.
    :param failed: of these the ones that failed.
    :param hosts: by key.
    :param changed: files that differ since then.
    """

    judged: frozenset[str]
    failed: frozenset[str]
    hosts: Mapping[str, HostPrint]
    changed: tuple[str, ...] = ()


class WatchNotes(msgspec.Struct, frozen=True):
    """The notes of a watched session, in a directory of the watching process.

    :param watching_pid: of that process; a run ends with it.
    """

    directory: Path
    watching_pid: int

    @classmethod
    def parse(cls, text: str) -> WatchNotes:
        """Read what :meth:`__str__` wrote."""
        pid, _, directory = text.partition(":")
        return cls(Path(directory), int(pid))

    def __str__(self) -> str:
        return f"{self.watching_pid}:{self.directory}"

    def add_changed(self, paths: Iterable[Path]) -> None:
        """Note further files that changed since the last run that judged anything."""
        after, before = self.directory / _AFTER, self.directory / _BEFORE
        changed = self._changed()
        if after.exists():
            after.replace(before)
            changed = ()
        names = sorted({*changed, *map(str, paths)})
        (self.directory / _CHANGED).write_bytes(msgspec.json.encode(names))

    def read(self) -> Before | None:
        """Return what the runs before left; ``None`` where none came as far as judging."""
        try:
            kept = msgspec.json.decode((self.directory / _BEFORE).read_bytes(), type=Before)
        except FileNotFoundError:
            return None
        return msgspec.structs.replace(kept, changed=self._changed())

    def write(self, after: Before) -> None:
        """Leave notes to the next run."""
        draft = self.directory / f"{_AFTER}.new"
        draft.write_bytes(msgspec.json.encode(after))
        draft.replace(self.directory / _AFTER)

    def _changed(self) -> tuple[str, ...]:
        try:
            return tuple(msgspec.json.decode((self.directory / _CHANGED).read_bytes()))
        except FileNotFoundError:
            return ()


def _digest(value: object) -> str:
    # Sets have no order of their own.
    return hashlib.sha256(msgspec.json.encode(value, order="deterministic")).hexdigest()
