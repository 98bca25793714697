"""JUnit learns at the end which finding explains which: its test cases are written as they come,
the causes are known last.
"""

from __future__ import annotations

from collections.abc import Iterable
from xml.etree import ElementTree as ET

import pytest
from _pytest.junitxml import xml_key

from pytest_nixos.findings import Finding

__all__ = ["add_causes"]


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
