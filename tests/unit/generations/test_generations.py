"""Generations: what activations announce, what systemd shows of them, links after each verb, and
refusals.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_nixos.errors import GenerationError, MachineError, SettingsError, TransportError
from pytest_nixos.generations import (
    Delta,
    Generation,
    Generations,
    Links,
    OtherFlake,
    OtherHost,
    Specialisation,
    StorePath,
    SwitchEnd,
    SwitchOutcome,
    UnitChanges,
    Verb,
)
from pytest_nixos.generations.links import Moment
from pytest_nixos.generations.sources import as_source
from pytest_nixos.generations.units import parse_states, parse_units
from pytest_nixos.machine.base import BackendName, Machine
from pytest_nixos.machine.command import CommandResult
from pytest_nixos.nix.command.refs import FlakeRef, at_revision
from tests.support.machine import FakeMachine


def _show(*units: tuple[str, str, str, int]) -> str:
    return "\n".join(
        f"Type=simple\nId={name}\nActiveState={state}\nInvocationID={start}\n"
        f"StateChangeTimestampMonotonic={changed}\n"
        for name, state, start, changed in units
    )


def test_units_that_changed() -> None:
    before = parse_units(
        _show(
            ("same.service", "active", "a1", 5),
            ("gone.service", "active", "b1", 5),
            ("again.service", "active", "c1", 5),
            ("reread.service", "active", "d1", 5),
            ("mended.service", "failed", "e1", 5),
            ("some.target", "active", "g1", 5),
        )
    )
    after = parse_units(
        _show(
            ("same.service", "active", "a1", 5),
            ("again.service", "active", "c2", 9),
            ("reread.service", "active", "d1", 9),
            ("mended.service", "active", "e2", 9),
            ("broken.service", "failed", "f1", 9),
            ("some.target", "active", "g1", 9),
        )
    )
    assert UnitChanges.between(before, after) == UnitChanges(
        stopped=("gone.service",),
        started=("mended.service",),
        restarted=("again.service",),
        reloaded=("reread.service",),
        failed=("broken.service",),
        recovered=("mended.service",),
    )


def test_states_alone_tell_all_but_restarts() -> None:
    before = parse_states("a.service loaded active running A\nb.service loaded active running B\n")
    after = parse_states(
        "\N{BLACK CIRCLE} a.service loaded failed failed A\nc.mount loaded active mounted C\nodd\n"
    )
    assert UnitChanges.between(before, after) == UnitChanges(
        stopped=("a.service", "b.service"), started=("c.mount",), failed=("a.service",)
    )


OLD, NEW = "/nix/store/a-nixos-system-old", "/nix/store/b-nixos-system-new"
LINKS = Links(current=OLD, booted=OLD, profile=OLD, default=OLD)


@pytest.mark.parametrize(
    ("verb", "expected"),
    [
        (Verb.SWITCH, Links(current=NEW, booted=OLD, profile=NEW, default=NEW)),
        (Verb.BOOT, Links(current=OLD, booted=OLD, profile=NEW, default=NEW)),
        (Verb.TEST, Links(current=NEW, booted=OLD, profile=OLD, default=OLD)),
        (Verb.DRY_ACTIVATE, LINKS),
    ],
)
def test_links_after_each_verb(verb: Verb, expected: Links) -> None:
    assert LINKS.after(verb, NEW) == expected


def test_links_after_a_reboot() -> None:
    switched = LINKS.after(Verb.BOOT, NEW).after_boot()
    assert switched == Links(current=NEW, booted=NEW, profile=NEW, default=NEW)
    direct = Links(current=NEW, booted=OLD, profile=NEW, default="")
    assert direct.after(Verb.SWITCH, NEW).default == ""
    assert direct.after_boot().current == OLD


def test_generations_are_read_in_order_and_odd_lines_left_out() -> None:
    text = (
        "10-link\t/nix/store/x-b\t1700000100\t6.12.1\t25.11\n"
        "2-link\t/nix/store/x-a\t1700000000\t\t25.05\n"
        "odd-link\t/nix/store/x-c\t1\t\t\nshort\n"
    )
    found = Generation.parse_all(text)
    assert [(g.number, g.toplevel, g.kernel, g.release) for g in found] == [
        (2, "/nix/store/x-a", "", "25.05"),
        (10, "/nix/store/x-b", "6.12.1", "25.11"),
    ]
    assert found[0].created.isoformat() == "2023-11-14T22:13:20+00:00"


def test_modules_of_another_kernel_are_warned_of() -> None:
    text = "kernel=6.6.1\nmodules=6.12.1 \n==units==\n"
    assert "6.12.1 only" in Moment.parse(text).kernel_warning
    assert Moment.parse(text.replace("6.12.1", "6.6.1")).kernel_warning == ""
    assert Moment.parse("kernel=6.6.1\nmodules=\n==units==\n").kernel_warning == ""


@pytest.mark.parametrize(
    ("status", "end", "switched"),
    [
        (0, SwitchEnd.DONE, True),
        (1, SwitchEnd.NOT_BEGUN, False),
        (2, SwitchEnd.ACTIVATION_FAILED, False),
        (3, SwitchEnd.RELOAD_FAILED, False),
        (4, SwitchEnd.UNITS_FAILED, True),
        (100, SwitchEnd.REBOOT_NEEDED, False),
        (137, SwitchEnd.OTHER, False),
    ],
)
def test_exit_statuses(status: int, end: SwitchEnd, switched: bool) -> None:
    outcome = SwitchOutcome(verb=Verb.SWITCH, toplevel=NEW, exit_status=status, output="")
    assert (outcome.end, outcome.switched) == (end, switched)
    assert outcome.meaning


def test_sources(tmp_path: Path) -> None:
    module = tmp_path / "delta.nix"
    module.write_text("{ }")
    assert as_source("{ a = 1; }") == Delta("{ a = 1; }")
    assert as_source(module) == Delta("{ }")
    assert as_source(NEW) == StorePath(NEW) == as_source(Path(NEW))
    assert as_source(OtherHost("b")) == OtherHost("b")
    with pytest.raises(GenerationError, match="cannot be read"):
        as_source(tmp_path / "none.nix")


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("url", "revision", "expected"),
    [
        ("github:me/infra/main", COMMIT, f"github:me/infra/{COMMIT}"),
        ("github:me/infra?dir=x", "v1", "github:me/infra/v1"),
        ("git+ssh://h/r?ref=main&dir=x", COMMIT, f"git+ssh://h/r?dir=x&rev={COMMIT}"),
        ("git+file:///srv/r", "v1", "git+file:///srv/r?ref=v1"),
    ],
)
def test_revisions(url: str, revision: str, expected: str) -> None:
    assert at_revision(FlakeRef(url), revision).url == expected


def test_revision_of_a_checkout(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    below = tmp_path / "hosts"
    below.mkdir()
    assert at_revision(FlakeRef(str(tmp_path)), "v1").url == f"git+file://{tmp_path}?ref=v1"
    assert at_revision(FlakeRef(f"path:{below}"), COMMIT).url == (
        f"git+file://{tmp_path}?dir=hosts&rev={COMMIT}"
    )


def test_revision_of_what_is_not_in_git(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="not kept in git"):
        at_revision(FlakeRef(str(tmp_path)), "v1")


class FakeBridge:
    def build_generation(self, source: Delta | OtherHost | OtherFlake) -> Path:
        return Path(NEW)

    def holds(self, path: Path) -> bool:
        return False

    def closure(self, path: Path) -> Sequence[Path]:
        return [path]

    def registration(self, paths: Sequence[Path]) -> bytes:
        return b""

    def export(self, paths: Sequence[Path]) -> bytes:
        return b""


def _generations(
    answers: dict[str, str | int | Exception], *, refusal: str = ""
) -> tuple[Generations, FakeMachine]:
    guest = FakeMachine(answers, toplevel=OLD)
    return Generations(guest.as_machine, FakeBridge(), refusal=refusal), guest


def test_store_path_that_is_nowhere() -> None:
    generations, _ = _generations({"[ -e": ""})
    with pytest.raises(GenerationError, match="neither this machine's store nor the guest's"):
        generations.build(NEW)


def test_store_path_that_is_no_system() -> None:
    generations, _ = _generations({"[ -e": "there\n"})
    with pytest.raises(GenerationError, match="not a NixOS system"):
        generations.build(StorePath("/nix/store/c-hello"))


def test_store_path_of_another_architecture() -> None:
    generations, guest = _generations({"[ -e": "there\nsystem\naarch64-linux"})
    with pytest.raises(GenerationError, match="aarch64-linux system, and this machine is x86_64"):
        generations.switch(NEW)
    assert not any("nix-env" in command for command in guest.commands)


def test_number_that_is_not_there() -> None:
    generations, _ = _generations({"-link": "1-link\t/nix/store/x\t1\t\t\n"})
    with pytest.raises(GenerationError, match="no generation 7") as caught:
        generations.generation(7)
    assert "profile: 1" in caught.value.remedy


def test_rollback_without_an_earlier_generation_changes_nothing() -> None:
    generations, guest = _generations(
        {
            "for link in": f"3-link\t{OLD}\t1\t\t\n4-link\t{NEW}\t2\t\t\n",
            "readlink /nix": "system-3-link",
            "readlink -e": f"profile={OLD}\n==units==\n",
        }
    )
    with pytest.raises(GenerationError, match="no earlier generation"):
        generations.rollback()
    assert not any("--rollback" in command for command in guest.commands)


def test_specialisation_that_is_not_there() -> None:
    generations, _ = _generations({"specialisation": "no-swap\nother\n"})
    with pytest.raises(GenerationError, match="no specialisation 'x'") as caught:
        generations.build(Specialisation("x"))
    assert "no-swap, other" in caught.value.remedy


def test_live_host_is_left_alone_without_permission() -> None:
    generations, guest = _generations({}, refusal="it is a live host")
    for change in (
        lambda: generations.switch("{ }"),
        lambda: generations.test("{ }"),
        lambda: generations.boot("{ }"),
        lambda: generations.dry_activate("{ }"),
        generations.rollback,
        generations.reboot,
        generations.crash,
        generations.shutdown,
    ):
        with pytest.raises(GenerationError, match="live host") as caught:
            change()
        assert "--nixos-allow-live-switch" in caught.value.remedy
    assert guest.commands == []


def test_generation_that_no_boot_loader_can_choose() -> None:
    generations, _ = _generations({"-link": f"1-link\t{OLD}\t1\t\t\n"})
    with pytest.raises(GenerationError, match="no boot loader chooses") as caught:
        generations.reboot(into=1)
    assert "boot-loader" in caught.value.remedy


LOOK = f"current={OLD}\nbooted={OLD}\nprofile={NEW}\n==units==\n"


def test_switch_that_is_cut_off_before_it_changed_anything_leaves_the_machine_usable() -> None:
    generations, guest = _generations(
        {"bin/switch-to": TransportError("gone", remedy=""), "readlink -e": LOOK}
    )
    with pytest.raises(GenerationError, match="nothing had changed"):
        generations.activate(NEW, Verb.TEST)
    assert guest.condemned == ""


def test_switch_that_is_cut_off_half_way_breaks_the_machine() -> None:
    looks = iter([LOOK, LOOK.replace(f"current={OLD}", f"current={NEW}")])
    generations, guest = _generations({"bin/switch-to": TransportError("gone", remedy="")})
    run = guest.run

    def turning(command: str, **kwargs: Any) -> CommandResult:
        if "==units==" in command:
            guest.answers["==units=="] = next(looks)
        return run(command, **kwargs)

    guest.run = turning  # type: ignore[method-assign]
    with pytest.raises(GenerationError, match=f"half-switched: it runs {NEW}"):
        generations.activate(NEW, Verb.TEST)
    assert "half-switched" in guest.condemned


def test_switch_after_which_nothing_answers_breaks_the_machine() -> None:
    looks = iter([LOOK])
    generations, guest = _generations({"bin/switch-to": TransportError("gone", remedy="")})
    run = guest.run

    def turning(command: str, **kwargs: Any) -> CommandResult:
        if "==units==" in command:
            guest.answers["==units=="] = next(looks, TransportError("dead", remedy=""))
        return run(command, **kwargs)

    guest.run = turning  # type: ignore[method-assign]
    with pytest.raises(GenerationError, match="the machine is broken"):
        generations.activate(NEW, Verb.SWITCH)
    assert "no longer answers" in guest.condemned


@pytest.mark.parametrize(
    ("tells_restarts", "asks"), [(True, "systemctl show"), (False, "list-units")]
)
def test_each_unit_is_asked_only_where_restarts_are_told(
    *, tells_restarts: bool, asks: str
) -> None:
    looks = {"==states==": LOOK.replace("units", "states") + "a.service loaded failed failed A\n"}
    generations, guest = _generations({"bin/switch-to": 1, **looks, "==units==": LOOK})
    outcome = generations.activate(NEW, Verb.TEST, tells_restarts=tells_restarts)
    looked = [command for command in guest.commands if "/proc/uptime" in command]
    assert [asks in command for command in looked] == [True, True]
    assert outcome.unwell_before == (frozenset() if tells_restarts else {"a.service"})


def test_condemned_machine_answers_no_more() -> None:
    guest, ssh = FakeMachine(toplevel=OLD), SimpleNamespace(name=BackendName.SSH)
    machine = Machine(spec=guest.spec, backend=ssh)  # type: ignore[arg-type]
    machine._running = object()  # type: ignore[assignment]
    machine.condemn("half-switched")
    with pytest.raises(MachineError, match="broken: half-switched"):
        machine.run("true")
    with pytest.raises(MachineError, match="ssh backend cannot switch a machine off"):
        machine.power_off(orderly=True)
