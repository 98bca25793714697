import json
from typing import Any

from pytest_nixos.nix.command.log import BuildProgress, NixLog, derivation_name, describe

DRV = "/nix/store/k4ndzxvgpsgr1zcwzdvvsy6qgwpdnvn5-linux-6.6.drv"


def event(**fields: Any) -> str:
    return "@nix " + json.dumps(fields)


def read(*lines: str) -> tuple[NixLog, list[BuildProgress]]:
    seen: list[BuildProgress] = []
    log = NixLog(seen.append)
    for line in lines:
        log.feed(line)
    return log, seen


def test_an_error_is_told_without_colour_and_trace() -> None:
    log, _ = read(
        event(
            action="msg",
            level=0,
            msg="\x1b[31;1merror:\x1b[0m my own\n  … while",
            raw_msg="my \x1b[35;1mown\x1b[0m",
            file="/x/flake.nix",
            line=3,
        )
    )
    (error,) = log.errors
    assert error.text == "my own"
    assert error.whole == "error: my own\n  … while"
    assert error.place == "/x/flake.nix:3"


def test_the_hint_at_more_is_no_error() -> None:
    hint = "(use '--show-trace' to show detailed location information)"
    log, _ = read(event(action="msg", level=0, msg=hint))
    assert log.errors == []


def test_a_place_that_is_no_file_or_has_its_line_already() -> None:
    log, _ = read(
        event(action="msg", level=0, msg="error: a", raw_msg="a", file="«string»", line=1),
        event(action="msg", level=0, msg="error: b", raw_msg="b", file="/x.nix:1:7", line=1),
        event(action="msg", level=0, msg="error: c", raw_msg="c", file=None, line=None),
    )
    assert [error.place for error in log.errors] == ["", "/x.nix:1:7", ""]


def test_warnings_and_plain_lines() -> None:
    log, seen = read(
        event(action="msg", level=1, msg="\x1b[35;1mwarning:\x1b[0m Git tree is dirty"),
        "fatal: no \x1b[1mrepository\x1b[0m\x07",
        "@nix {broken",
        "@nix [1]",
    )
    assert log.warnings == ["Git tree is dirty"]
    assert list(log.plain) == ["fatal: no repository", "@nix {broken", "@nix [1]"]
    assert seen == []


def test_a_build_from_start_to_end() -> None:
    log, seen = read(
        event(action="start", id=1, type=104, text=""),
        event(action="result", id=1, type=105, fields=[0, 2, 0, 0]),
        event(action="start", id=2, type=105, fields=[DRV, "", 1, 1], text="building"),
        event(action="result", id=2, type=101, fields=["line \x1b[1mone\x1b[0m"]),
        event(action="result", id=1, type=105, fields=[1, 2, 0, 0]),
        event(action="stop", id=2),
    )
    assert [describe(progress) for progress in seen] == [
        "built 0/2",
        "built 0/2, building linux-6.6",
        "built 1/2, building linux-6.6",
        "built 1/2",
    ]
    assert log.log_tail(DRV) == ("line one",)
    assert log.log_tail("/nix/store/other.drv") == ()


def test_downloads_add_up() -> None:
    _, seen = read(
        event(action="start", id=1, type=103),
        event(action="result", id=1, type=105, fields=[0, 3, 1, 0]),
        event(action="result", id=1, type=106, fields=[101, 4 << 20]),
        event(action="start", id=2, type=101, fields=["https://cache/x.nar"]),
        event(action="result", id=2, type=105, fields=[1 << 20, 2 << 20, 0, 0]),
        event(action="stop", id=2),
        event(action="result", id=1, type=105, fields=[1, 3, 0, 0]),
    )
    assert describe(seen[-1]) == "fetched 1/3 paths, 1.0 of 4.0 MiB"
    assert seen[-1].downloaded_bytes == 1 << 20


def test_many_builds_at_once_are_counted_not_listed() -> None:
    progress = BuildProgress(building=tuple("abcde"), to_build=9, built=2)
    assert describe(progress) == "built 2/9, building a, b, c and 2 more"


def test_nothing_to_do_says_nothing() -> None:
    assert describe(BuildProgress()) == ""


def test_odd_numbers_do_no_harm() -> None:
    log, _ = read(
        event(action="result", id="x", type=105, fields=["a", None]),
        event(action="start", id=5, type=105, fields=[]),
        event(action="stop", id=77),
        event(action="result", id=5, type=101, fields=["lost"]),
    )
    assert log.progress == BuildProgress()


def test_derivation_name() -> None:
    assert derivation_name(DRV) == "linux-6.6"
    assert derivation_name("plain") == "plain"
