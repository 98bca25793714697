"""What the benchmarks write; measuring itself is ``./dev bench --quick``."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.bench import driver, evaluation
from tests.bench.figures import Bar, Goal, Sample, Section, at_least, at_most, merged, quantity
from tests.bench.picture import svg
from tests.bench.rig import Plan
from tests.bench.table import markdown

SECTION = Section(
    name="a",
    title="A title",
    lead="What was done.",
    header=("what", "median"),
    rows=(("a | b", "1 s"),),
    goals=(Goal(wanted="small", got="2 s", reached=False, reason="too slow"),),
    bars=(Bar(label="<ours>", value=1.0, ours=True), Bar(label="theirs", value=4.0, ours=False)),
    bars_title="Time",
    bars_unit="s",
)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0123, "0.0123"), (1.234, "1.23"), (99.96, "100"), (1234.5, "1234"), (0, "0"), (5e-5, "5.0e-05")],
)  # fmt: skip
def test_quantities_have_three_digits(value: float, text: str) -> None:
    assert quantity(value) == text


def test_a_sample_is_its_median_and_its_spread() -> None:
    assert str(Sample(values=(3.0, 1.0, 2.0), unit="s")) == "2 s (1 to 3)"
    assert str(Sample(values=(3.0,), unit="s")) == "3 s"


def test_goals_are_judged() -> None:
    assert at_most("x", 1.5, 1.5, unit="s", reason="").reached
    assert not at_most("x", 1.51, 1.5, unit="s", reason="").reached
    assert at_least("x", 20, 20, reason="").reached
    assert not at_least("x", 19.9, 20, reason="").reached


def test_sections_survive_json() -> None:
    assert Section.from_json(json.loads(json.dumps(SECTION.to_json()))) == SECTION


def test_new_figures_replace_those_of_their_part_only() -> None:
    from dataclasses import replace

    other, newer = replace(SECTION, name="b"), replace(SECTION, title="newer")
    assert merged([SECTION, other], [newer], ["b", "a", "c"]) == [other, newer]


def test_a_missed_goal_stays_with_its_reason() -> None:
    page = markdown([SECTION])
    assert "| small | 2 s | missed: too slow |" in page
    assert "| a \\| b | 1 s |" in page


def test_bars_are_to_scale_and_labels_are_text() -> None:
    root = ET.fromstring(svg([SECTION]))
    names = {"s": "http://www.w3.org/2000/svg"}
    ours, theirs = (float(r.attrib["width"]) for r in root.findall("s:rect", names))
    assert theirs == pytest.approx(4 * ours, rel=0.01)
    assert "<ours>" in [text.text for text in root.findall("s:text", names)]


def test_the_page_is_what_the_figures_give() -> None:
    reference = Path(__file__).parents[3] / "docs/reference"
    sections = [
        Section.from_json(data) for data in json.loads((reference / "benchmarks.json").read_text())
    ]
    assert (reference / "benchmarks.md").read_text() == markdown(sections)
    assert (reference / "benchmarks.svg").read_text() == svg(sections)


def test_the_drivers_own_times_stand_beside_ours() -> None:
    one = {"shell_s": 20.0, "up_s": 30.0, "commands": {"cat /etc/hostname": [8.0, 9.0]}}
    made = driver.section([one], [one | {"shell_s": 10.0}])
    assert made.header == ("what", "pytest-nixos", "test driver")
    assert made.rows[0][1:] == ("10 s", "20 s")
    assert made.rows[-1][1:] == ("8.5 ms (8 to 9)", "8.5 ms (8 to 9)")
    assert [bar.ours for bar in made.bars] == [True, False]


def test_an_evaluation_is_held_against_plain_nix_eval() -> None:
    made = evaluation.section(
        {"server": ([(4.0, 1000), (5.0, 1000), (4.0, 1010)], [(5.0, 1100)])}, version="nix 2.8"
    )
    assert made.rows == (
        ("server", "4 s (4 to 5)", "5 s", "1000 MiB (1000 to 1010)", "1100 MiB", "1.25", "1.10"),
    )
    assert [goal.reached for goal in made.goals] == [False, True]
    assert [bar.value for bar in made.bars] == [4.0, 5.0]


def test_without_a_nixpkgs_tree_no_evaluation_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(evaluation, "NIXPKGS", "")
    assert evaluation.measure(tmp_path, Plan(runs=1, quick=True)) == ()
    assert capsys.readouterr().err.count("\n") == 1
