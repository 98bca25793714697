"""Homes of home-manager, as the guest tells of them."""

from __future__ import annotations

from pytest_nixos.observe.base import ProbeOutput
from pytest_nixos.observe.filesystems.home import Home, homes

GENERATION = "/nix/store/x-home-manager-generation"
STATE = {
    "ActiveState": "inactive",
    "SubState": "dead",
    "Result": "success",
    "ExecMainStartTimestampMonotonic": "12",
    "User": "alice",
    "Home": "/home/alice",
    "Generation": GENERATION,
    "Current": GENERATION,
}


def seen(files: str = "", *, complete: bool = True, **changed: str) -> Home:
    state = "".join(f"{key}={value}\n" for key, value in {**STATE, **changed}.items())
    unit = "home-manager-alice.service"
    text = f"\nM=state {unit}\n{state}\nM=files {unit}\n{files}"
    if complete:
        text += f"\nM=complete {unit}\n\nM=complete\n"
    output = ProbeOutput(stdout=text.encode(), exit_status=0, mark="M")
    [home] = homes().parse(output)
    return home


def test_a_home_as_the_system_says() -> None:
    home = seen()
    assert (home.user, home.problems, home.is_whole) == ("alice", (), True)


def test_each_problem_is_told() -> None:
    assert seen(Result="exit-code").problems[0].endswith("has failed: exit-code")
    assert seen(ExecMainStartTimestampMonotonic="0").problems[0].endswith("has not run")
    assert "is of no generation, not of" in seen(Current="").problems[0]
    assert "is of /nix/store/y" in seen(Current="/nix/store/y").problems[0]
    assert seen("is missing .a b\nleads nowhere .c\1d\n").problems == (
        ".a b is missing",
        ".c\nd leads nowhere",
    )


def test_what_was_cut_short_is_not_whole() -> None:
    assert not seen(complete=False).is_whole


def test_a_host_without_home_manager_has_none() -> None:
    output = ProbeOutput(stdout=b"\nM=complete\n", exit_status=0, mark="M")
    assert homes().parse(output) == ()
