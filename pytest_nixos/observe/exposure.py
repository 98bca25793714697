"""Exposure of services: the score of ``systemd-analyze security``."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pytest_nixos.observe.base import Probe, ProbeOutput
from pytest_nixos.observe.unit import is_template, unit_name

__all__ = ["Exposure", "ExposureItem", "exposure"]

# Text and not --json: only the text holds the overall score of named units (systemd 250 to 258), and it is the same
# since 240. SYSTEMD_UTF8 fixes the marks, COLUMNS keeps descriptions on one line.
_READ = (
    "SYSTEMD_COLORS=0 SYSTEMD_UTF8=1 SYSTEMD_EMOJI=0 COLUMNS=200 LC_ALL=C.UTF-8 "
    "systemd-analyze security --no-pager {units}"
)
_OVERALL = re.compile(r"Overall exposure level for (\S+): ([\d.]+) (\w+)")
_MISSING = "\u2717"  # ballot x


@dataclass(frozen=True, slots=True, kw_only=True)
class ExposureItem:
    """One directive that is missing or too weak, with what it adds to the score."""

    directive: str
    description: str
    weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposure:
    """The exposure of one service.

    :param score: 0.0 (closed) to 10.0 (open).
    :param rating: systemd's word for it: ``PERFECT``, ``SAFE``, ``OK``, ``MEDIUM``, ``EXPOSED``, ``UNSAFE``,
        ``DANGEROUS``.
    :param items: what adds to it, worst first.
    """

    unit: str
    score: float
    rating: str
    items: tuple[ExposureItem, ...]


def exposure(names: Sequence[str], *, name: str = "exposure") -> Probe[Mapping[str, Exposure]]:
    """Ask for the exposure of many services in one call.

    :param names: unit names; those that are no services, and templates, are left out.
    :return: probe of name, with suffix, to exposure; a service that systemd could not judge is absent.
    """
    services = [n for n in dict.fromkeys(unit_name(n) for n in names) if n.endswith(".service")]
    wanted = [n for n in services if not is_template(n)]
    # Without names it would judge every service.
    script = _READ.format(units=shlex.join(wanted)) if wanted else ":"
    return Probe(name=name, script=script, parse=_parse)


def _parse(output: ProbeOutput) -> Mapping[str, Exposure]:
    found: dict[str, Exposure] = {}
    items: list[ExposureItem] = []
    for line in output.text.splitlines():
        overall = _OVERALL.search(line)
        if overall:
            items.sort(key=lambda item: -item.weight)
            score = _weight(overall[2])
            found[overall[1]] = Exposure(
                unit=overall[1], score=score, rating=overall[3], items=tuple(items)
            )
            items = []
        elif line.lstrip().startswith(_MISSING):
            _, directive, *words = line.split()
            weight = _weight(words[-1]) if words else 0.0
            items.append(
                ExposureItem(directive=directive, description=" ".join(words[:-1]), weight=weight)
            )
    return found


def _weight(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
