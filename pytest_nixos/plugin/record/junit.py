"""JUnit learns at the end which finding explains which: its test cases are written as they come,
the causes are known last.
"""

from __future__ import annotations

from collections.abc import Iterable
from xml.etree import ElementTree as ET

import pytest
from _pytest.junitxml import xml_key

from pytest_nixos.findings import Finding
from pytest_nixos.local.text import printable

__all__ = ["add_causes", "add_places"]


def add_causes(config: pytest.Config, findings: Iterable[Finding]) -> None:
    """Add the properties ``nixos_caused_by`` and ``nixos_explains`` to the test cases of
    ``--junit-xml``, before it is written.
    """
    junit = config.stash.get(xml_key, None)
    if junit is None:
        return
    linked = {(f.control, f.host): f for f in findings if f.caused_by or f.explains}
    for reporter in junit.node_reporters_ordered:
        properties = reporter.to_xml().find("properties")
        if properties is None:
            continue
        said = {p.get("name"): p.get("value") for p in properties}
        finding = linked.get((said.get("nixos_control") or "", said.get("nixos_host") or ""))
        if finding is None:
            continue
        for name, controls in (
            ("nixos_caused_by", finding.caused_by),
            ("nixos_explains", finding.explains),
        ):
            if controls:
                ET.SubElement(properties, "property", name=name, value=" ".join(controls))


def add_places(config: pytest.Config, findings: Iterable[Finding]) -> None:
    """Give the test cases of ``--junit-xml`` the ``file`` and ``line`` of the flake that decide
    them.
    """
    junit = config.stash.get(xml_key, None)
    if junit is None:
        return
    places = {
        (f.control, f.host): place
        for f in findings
        for place in f.places[:1]
        if f.failed and place.own
    }
    for reporter in junit.node_reporters_ordered:
        case = reporter.to_xml()
        said = {p.get("name"): p.get("value") for p in case.findall("properties/property")}
        place = places.get((said.get("nixos_control") or "", said.get("nixos_host") or ""))
        if place is not None:
            case.set("file", printable(place.file))
            if place.line is not None:
                case.set("line", str(place.line))
