"""The changed generation of suite rollback is known before its machine is looked at."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from checks.rollback import test_rollback as suite
from tests.unit.standards.samples import host_config


@pytest.mark.parametrize(
    ("declared", "place", "changes_sysctl"),
    [("128", "vm", True), ("128", "container", False), (None, "vm", False)],
)
def test_the_marker_tells_the_module_that_the_story_builds(
    declared: str | None, place: str, *, changes_sysctl: bool
) -> None:
    # A lone function is what pytest takes a marker to decorate: it has to be named.
    assert isinstance(suite.pytestmark, pytest.MarkDecorator)
    host = replace(host_config(), sysctls={suite.SYSCTL: declared} if declared else {})
    module = suite.pytestmark.kwargs["make"](host, place)
    assert module == (
        suite.changed_module() if changes_sysctl else suite.changed_module(instances="")
    )
    assert (suite.SYSCTL in module) is changes_sysctl
