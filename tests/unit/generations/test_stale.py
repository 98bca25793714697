"""Services that still run what an earlier generation gave them, and those that do not."""

from __future__ import annotations

import base64
import dataclasses

import pytest

from pytest_nixos.generations.stale import (
    RunningService,
    files_named,
    other_variables,
    stale_services,
)

NEW = "/nix/store/11111111111111111111111111111111-app-2"
OLD = "/nix/store/00000000000000000000000000000000-app-1"
UNIT = f"[Unit]\nDescription=App\n[Service]\nExecStart={NEW}/bin/app\n"


def service(**changes: object) -> RunningService:
    start = RunningService(
        name="app.service",
        invocation="a1",
        changed_us=5,
        unit=UNIT,
        etc=frozenset({"/etc/app.conf"}),
        store_paths=frozenset({NEW}),
        environment={"PATH": "/bin", "INVOCATION_ID": "a1"},
    )
    return dataclasses.replace(start, **changes)  # type: ignore[arg-type]  # of a test's own choice


def stale(
    now: RunningService, *, before: RunningService | None = None, changed: tuple[str, ...] = ()
) -> tuple[str, ...]:
    found = stale_services(
        before={now.name: before or service(name=now.name)},
        after={now.name: now},
        changed=changed,
        closure={NEW},
    )
    return found.get(now.name, ())


def test_what_did_not_change_is_not_stale() -> None:
    assert stale(service()) == ()
    assert stale(service(), changed=("/etc/other.conf",)) == ()


def test_a_file_that_it_names_and_that_changed() -> None:
    (reason,) = stale(service(), changed=("/etc/app.conf",))
    assert "/etc/app.conf" in reason


@pytest.mark.parametrize("change", [{"invocation": "b2"}, {"changed_us": 9}])
def test_a_restart_or_a_reload_reads_the_file_again(change: dict[str, object]) -> None:
    assert stale(service(**change), changed=("/etc/app.conf",)) == ()


def test_a_unit_that_changed_without_a_restart() -> None:
    (reason,) = stale(service(unit=f"{UNIT}Environment=A=1\nX-RestartIfChanged=false\n"))
    assert "(Environment, X-RestartIfChanged)" in reason or "Environment" in reason
    assert "restartIfChanged = false" in reason
    # Words about a unit do not change its process.
    assert stale(service(unit=UNIT.replace("=App", "=Another"))) == ()


def test_a_process_that_is_made_of_what_the_new_system_lacks() -> None:
    (reason,) = stale(service(store_paths=frozenset({NEW, OLD})))
    assert OLD in reason


@pytest.mark.parametrize("name", ["dbus.service", "getty@tty1.service", "user@0.service"])
def test_what_nixos_leaves_to_the_next_boot_is_no_finding(name: str) -> None:
    old = service(name=name, store_paths=frozenset({OLD}))
    assert stale(old, changed=("/etc/app.conf",)) == ()


def test_a_directory_names_the_files_in_it_and_what_is_read_anew_does_not_count() -> None:
    named = service(etc=frozenset({"/etc/app.d", "/etc/hosts", "/etc/ssl/certs/ca.crt"}))
    changed = ("/etc/app.d/x", "/etc/app.d2/y", "/etc/hosts", "/etc/ssl/certs/ca.crt")
    assert files_named(named, changed) == ("/etc/app.d/x",)


def test_variables_are_compared_where_a_file_gives_them() -> None:
    unit = f"{UNIT}EnvironmentFile=/run/app.env\n"
    old, new = {"A": "1", "INVOCATION_ID": "a"}, {"A": "2", "INVOCATION_ID": "b"}
    ours = {"app.service": service(unit=unit, environment=old)}
    fresh = {"app.service": service(unit=unit, environment=new)}
    assert other_variables(ours, fresh) == {
        "app.service": "a fresh boot gives it other variables: A"
    }
    assert other_variables(ours, {}) == {}
    plain = {"app.service": service(environment=new)}
    assert other_variables({"app.service": service(environment=old)}, plain) == {}


def test_hostile_bytes_of_a_guest_stay_in_their_field() -> None:
    fields = [
        base64.b64encode(text).decode()
        for text in (b"app.service", b"\xff\t\n", b"/etc/a\n/etc/b", OLD.encode(), b"A=1\0B=x\ty\0")
    ]
    parsed = RunningService.parse({"Id": "app.service", "InvocationID": "q"}, fields)
    assert parsed.etc == {"/etc/a", "/etc/b"}
    assert parsed.environment == {"A": "1", "B": "x\ty"}
    assert RunningService.parse({"Id": "x"}, ["!", "!", "!", "!", "!"]).environment == {}
