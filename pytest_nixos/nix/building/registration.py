"""What a Nix store's database knows of paths, as ``nix-store --dump-db`` writes it and
``closureInfo`` of nixpkgs keeps it in ``registration``.

For each path: the path, the hash and size in bytes of its contents, its derivation or an empty line,
how many paths it refers to, and these (Nix's ``libstore/store-api.cc``, ``decodeValidPathInfo``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from pytest_nixos.errors import BuildError

__all__ = ["Registered", "read_registration", "requisites", "written"]


class Registered(msgspec.Struct, frozen=True, kw_only=True):
    """One store path.

    :param nar_bytes: size of its contents, in bytes.
    :param references: paths that it refers to; itself among them if it does.
    """

    path: str
    nar_hash: str
    nar_bytes: int
    references: tuple[str, ...]


def read_registration(text: str) -> Mapping[str, Registered]:
    """Read a registration by path.

    :raises ValueError: if it is cut short or no registration.
    """
    lines = iter(text.splitlines())
    found = {}
    for path in lines:
        if not path.startswith("/"):
            raise ValueError(f"no store path: {path!r}")
        found[path] = _entry(path, lines)
    return found


def requisites(known: Mapping[str, Registered], path: str) -> tuple[str, ...]:
    """Return the paths that `path` needs, itself included, in order of name.

    :raises BuildError: if one of them is not known.
    """
    seen: set[str] = set()
    waiting = [path]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        if name not in known:
            raise BuildError(
                f"{name}: is not among the paths that the machine was prepared with",
                remedy="prepare the host with lib.checkHost of the same release of pytest-nixos",
            )
        seen.add(name)
        waiting.extend(known[name].references)
    return tuple(sorted(seen))


def written(entries: Iterable[Registered]) -> str:
    """Write what ``nix-store --load-db`` reads."""
    return "".join(
        f"{line}\n"
        for entry in entries
        for line in (
            entry.path,
            entry.nar_hash,
            entry.nar_bytes,
            "",
            len(entry.references),
            *entry.references,
        )
    )


def _entry(path: str, lines: Iterator[str]) -> Registered:
    try:
        nar_hash, size, _deriver, count = (next(lines) for _ in range(4))
        references = tuple(next(lines) for _ in range(int(count)))
    except (StopIteration, RuntimeError) as err:
        raise ValueError(f"{path}: its entry is cut short") from err
    return Registered(path=path, nar_hash=nar_hash, nar_bytes=int(size), references=references)
