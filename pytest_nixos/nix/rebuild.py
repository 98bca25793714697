"""Which derivations of a system are cheap to build again, and what a second build says of them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pytest_nixos.nix.building.store import Nix
from pytest_nixos.nix.command.argv import rebuild_argv, requisites_argv
from pytest_nixos.nix.command.log import NixLog
from pytest_nixos.nix.evaluate import ask

__all__ = ["Rebuild", "different", "rebuild", "rebuildable"]

_AT_ONCE = 200
_QUICK_S = 120.0

# Attributes of the builders of nixpkgs that make text files, links and small scripts
# (trivial-builders).
_CHEAP = (b'("preferLocalBuild","1")', b'("buildCommand","', rb"\"buildCommand\":")
# Outputs stand first in a derivation: name, path, and where the content is fixed its hash.
_OUTPUTS = re.compile(rb'^Derive\(\[((?:\("[^"]*","[^"]*","[^"]*","[^"]*"\),?)+)\]')
_OUTPUT = re.compile(rb'\("[^"]*","(?P<path>[^"]*)","(?P<fixed>[^"]*)","[^"]*"\)')
# Lix from 2.92 on leaves out the store, Nix from 2.34 on quotes with `"`.
_DIFFERS = re.compile(
    r"derivation ['\"](?P<drv>(?:/nix/store/)?[^'\"\n]+?)(?:\.drv)?['\"] may not be deterministic"
)
_SYSTEM = re.compile(r"-(nixos-system-|etc\.drv|nixos-vm)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuild:
    """What building again showed.

    :param tried: derivations that were built a second time.
    :param different: those of them whose output differs.
    :param failures: what Nix said where it could not build again at all.
    """

    tried: tuple[str, ...]
    different: tuple[str, ...]
    failures: tuple[str, ...]


def rebuild(nix: Nix, derivation: str, known: dict[str, bool]) -> Rebuild:
    """Build again what this machine built for `derivation`, as far as that is cheap, and compare.

    :param derivation: store path of a derivation that has been built.
    :param known: whether a derivation that was built again in this run differed; hosts of a flake
        share most of theirs. What is built again now is added.
    """
    listed = nix.run(requisites_argv(derivation), NixLog(), _QUICK_S)
    tried = rebuildable(listed.stdout_text.split())
    fresh = [name for name in tried if name not in known]
    version = nix.version()
    found = dict.fromkeys(name for name in tried if known.get(name))
    failures: list[str] = []
    for first in range(0, len(fresh), _AT_ONCE):
        batch = fresh[first : first + _AT_ONCE]
        argv = rebuild_argv(nix.settings, batch, version=version)
        answer = ask(nix, argv, limit_s=nix.settings.build_limit_s)
        names = () if answer.succeeded else different(answer.said)
        found |= dict.fromkeys(names)
        if answer.succeeded or names:
            known |= {name: name in names for name in batch}
        else:
            failures.append(answer.said)
    return Rebuild(tried=tried, different=tuple(found), failures=tuple(failures))


def rebuildable(derivations: Iterable[str]) -> tuple[str, ...]:
    """Pick derivations that have been built on this machine and are cheap to build again."""
    return tuple(
        name for name in derivations if name.endswith(".drv") and _is_rebuildable(Path(name))
    )


def different(said: str) -> tuple[str, ...]:
    """Find the derivations that Nix or Lix calls not deterministic, by store path, or by name
    where it tells no more.
    """
    return tuple(
        dict.fromkeys(
            f"{match['drv']}.drv" if match["drv"].startswith("/") else match["drv"]
            for match in _DIFFERS.finditer(said)
        )
    )


def _is_rebuildable(derivation: Path) -> bool:
    try:
        text = derivation.read_bytes()
    except OSError:
        return False
    listed = _OUTPUTS.match(text)
    outputs = list(_OUTPUT.finditer(listed[1])) if listed else []
    if not outputs or any(output["fixed"] or not output["path"] for output in outputs):
        return False  # its content is fixed by a hash, or its path is not known before it is built
    cheap = _SYSTEM.search(derivation.name) or any(sign in text for sign in _CHEAP)
    return bool(cheap) and all(Path(output["path"].decode()).exists() for output in outputs)
