"""Pictures of a VM's screen in the HTML report: of hosts with a desktop, whose tests failed or asked."""

from __future__ import annotations

import json
import re

import pytest

from tests.plugin.field import Field
from tests.unit.host_documents import document, fact

# The screen is another one each time that somebody looks, but where a test holds it still.
_SCREEN = """

from pathlib import Path as _Path
from pytest_nixos.machine.picture import Picture


class Screen(Running):
    shown = 0

    def screen(self):
        Screen.shown += not _Path("still").exists()
        return Picture(width=2, height=1, pixels=bytes([Screen.shown % 256]) * 6)


FakeBackend.start = lambda self, spec, *, deadline: Screen(spec.host.name)
"""
_TESTS = """
import pytest

def test_shows(nixos_show_screen):
    assert nixos_show_screen('after "the" <login>') == ""

def test_fails(nixos_machine):
    assert 0

@pytest.mark.parametrize("number", range(9))
def test_fails_often(nixos_machine, number):
    assert 0

def test_passes(nixos_machine):
    pass
"""


@pytest.fixture
def desktop(field: Field) -> Field:
    give_units(field, "greetd.service")
    conftest = field.pytester.path / "conftest.py"
    conftest.write_text(conftest.read_text() + _SCREEN)
    field.pytester.makepyfile(_TESTS)
    return field


def give_units(field: Field, name: str) -> None:
    made = document()
    unit = {"enabled": True, "text": "", "wantedBy": []}
    made["facts"]["units"][name] = fact(unit)
    (field.pytester.path / "document.json").write_text(json.dumps(made))


def pictures(field: Field, *arguments: str) -> list[str]:
    """The words under the pictures of a run's report."""
    field.run_hosts("--nixos-report", "html:report.html", "--nixos-report", "json:report.json", *arguments)  # fmt: skip
    page = (field.pytester.path / "report.html").read_text()
    assert page.count("data:image/png;base64,iVBORw0KGgo") == page.count("<img")
    assert "iVBORw0KGgo" not in (field.pytester.path / "report.json").read_text()
    return re.findall(r"<figcaption>(.*?)</figcaption>", page)


@pytest.mark.parametrize("workers", [(), ("-n", "1")])
def test_failures_of_a_desktop_and_who_asks_have_a_picture(
    desktop: Field, workers: tuple[str, ...]
) -> None:
    found = pictures(desktop, "-k", "web and not often", *workers)

    assert found == [
        "web after &#34;the&#34; &lt;login&gt;",
        "web when test_fails[web] failed",
    ]


def test_six_pictures_of_a_host_are_the_most(desktop: Field) -> None:
    assert len(pictures(desktop, "-k", "web and often")) == 6


def test_the_same_picture_is_shown_once(desktop: Field) -> None:
    (desktop.pytester.path / "still").touch()
    assert pictures(desktop, "-k", "web and fails") == ["web when test_fails[web] failed"]


def test_a_host_without_a_desktop_has_none(desktop: Field) -> None:
    give_units(desktop, "sshd.service")
    assert pictures(desktop, "-k", "web and fails") == []
