"""The first look at a machine, which answers for all data controls, travels with the first table of
units.
"""

from __future__ import annotations

import pytest

from tests.plugin.field import Field

TRIPS = """
def _logged(run):
    def logged(self, command, **limits):
        kinds = [kind for kind, word in KINDS.items() if word in command]
        with LOG.open("a") as log:
            log.write(" and ".join(kinds) + "\\n" if kinds else "")
        return run(self, command, **limits)
    return logged

KINDS = {"table": "pn_show_units()", "controls": "protected_symlinks"}
Shell.run = _logged(Shell.run)
"""


@pytest.fixture
def trips(field: Field) -> Field:
    """A host of which it is kept what each trip to its machine asks."""
    conftest = field.pytester.path / "conftest.py"
    conftest.write_text(conftest.read_text() + TRIPS)
    field.pytester.makepyfile(
        """
        from pytest_nixos import observe
        def test_units(nixos_observations, nixos_host_config):
            nixos_observations.output(observe.declared_states(nixos_host_config))
        """
    )
    return field


def run(field: Field, *arguments: str) -> list[str]:
    """Return what each trip asked for."""
    field.run("--nixos-flake", ".#web", "--nixos-suite", "kernel-sysctl", *arguments)
    return [line for line in field.machine_log if not line.startswith(("start", "stop"))]


def test_one_trip_asks_for_units_and_for_all_controls(trips: Field) -> None:
    assert run(trips) == ["table and controls"]


def test_controls_that_are_not_selected_are_not_asked_for(trips: Field) -> None:
    assert run(trips, "-k", "test_units") == ["table"]


def test_a_worker_asks_for_its_own_tests_only(trips: Field) -> None:
    assert run(trips, "-k", "test_units or SYSCTL", "-n", "1") == ["table", "table and controls"]
