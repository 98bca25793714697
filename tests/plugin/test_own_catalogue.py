"""Controls and profiles of users, by ini setting and by hook, and the command that lists and
explains.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pytest_nixos.cli.main import main
from tests.plugin.field import Field

GUIDE = Path(__file__).parents[2] / "docs/how-to/own-controls.md"
_CHECK = """
import pytest
@pytest.mark.nixos_control("{control}")
def test_it(nixos_machine): assert 0, "broken"
"""


def examples() -> dict[str, str]:
    """Return the files that the how-to shows, by the name above each."""
    return dict(
        re.findall(r"`(standards/[\w/.-]+)`:\n\n```toml\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    )


@pytest.fixture
def own(field: Field) -> Field:
    for name, text in examples().items():
        path = field.pytester.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return field


def run(field: Field, *arguments: str, control: str = "HOUSE-001") -> pytest.RunResult:
    field.pytester.makepyfile(_CHECK.format(control=control))
    return field.run(
        *("--nixos-flake", ".#web", "--nixos-suite", "none"),
        *("--nixos-report", "json:report.json", *arguments),
    )


def severity(field: Field) -> str:
    (finding,) = field.report()["findings"]
    return str(finding["severity"])


def test_the_guide_by_ini_setting(own: Field) -> None:
    own.pytester.makeini("[pytest]\nnixos_catalogue = standards\nnixos_profile = house\n")
    run(own).assert_outcomes(failed=1)
    assert severity(own) == "HIGH"
    # The profile says so: the bundled catalogue has another severity.
    run(own, control="SSH-012").assert_outcomes(failed=1)
    assert severity(own) == "CRITICAL"


def test_the_guide_by_hook(own: Field) -> None:
    with (own.pytester.path / "conftest.py").open("a") as conftest:
        conftest.write(
            "\n\ndef pytest_nixos_catalogue_dirs(config):\n    return [config.rootpath / 'standards']\n"
        )
    run(own, "--nixos-profile", "house").assert_outcomes(failed=1)
    assert severity(own) == "HIGH"


def test_the_profile_of_the_guide_sets_parameter_and_severity(
    own: Field, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = str(own.pytester.path / "standards")
    assert main(["controls", "--catalogue", directory, "--profile", "house"]) == 0
    listed = capsys.readouterr().out
    assert re.search(r"HOUSE-001 +HIGH", listed) and re.search(r"SSH-012 +CRITICAL", listed)


def test_shadowing_without_saying_so_is_an_error(own: Field) -> None:
    path = own.pytester.path / "standards/house.toml"
    path.write_text(path.read_text().replace('"HOUSE-001"', '"SSH-001"'))
    result = run(own, "--nixos-catalogue", "standards", control="SSH-001")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["*house.toml: SSH-001: id: is taken by*ssh.toml*", "*overrides = true*"]
    )
    path.write_text(path.read_text().replace('id = "SSH-001"', 'id = "SSH-001"\noverrides = true'))
    run(own, "--nixos-catalogue", "standards", control="SSH-001").assert_outcomes(failed=1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["SSH-0099"], "no control 'SSH-0099'; did you mean SSH-009?"),
        (["--profile", "stigg"], "no profile 'stigg'; did you mean stig?"),
        (["--standard", "stigg"], "no standard 'stigg'; did you mean stig?"),
    ],
)
def test_unknown_names_suggest_the_nearest(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["controls", *arguments]) == 4
    assert said in capsys.readouterr().err


def test_controls_of_a_standard(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["controls", "--standard", "stig"]) == 0
    listed = capsys.readouterr().out
    assert "AUD-001" in listed and "ZRAM-001" not in listed
