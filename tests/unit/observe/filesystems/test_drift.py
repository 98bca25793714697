"""Drift: what a live host runs and has beside its flake, by the probe in this machine's bash."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pytest_nixos.backend_name import BackendName
from pytest_nixos.findings import Outcome
from pytest_nixos.nix.config.declared import User
from pytest_nixos.observe.filesystems.drift import Drift, drift
from pytest_nixos.standards.judging.judge import Verdict, judge
from pytest_nixos.standards.load import load_catalogue
from tests.unit.observe.here import ask, moved, parsed
from tests.unit.standards.samples import TOPLEVEL, host_config

OLD = "/nix/store/o"


def verdict(control: str, found: Drift | None, **config: object) -> Verdict:
    seen = {"drift": found}
    return judge(load_catalogue().control(control), host_config(**config), seen, BackendName.SSH)


def of(
    current: str = TOPLEVEL,
    *,
    kept: dict[int, str] | None = None,
    accounts: tuple[str, ...] = ("root",),
    specialisations: dict[str, str] | None = None,
) -> Drift:
    return Drift(
        current=current,
        generations=kept or {},
        specialisations=specialisations or {},
        files=(),
        containers=(),
        accounts=accounts,
    )


def user(name: str) -> User:
    return User.parse(
        name,
        {
            "uid": None,
            "isNormalUser": True,
            "isSystemUser": False,
            "group": "users",
            "extraGroups": [],
            "home": "/",
            "shell": None,
            "authorizedKeys": 0,
        },
    )


def make_etc(etc: Path) -> None:
    store = etc.parent / "store"
    for path in (store, etc / "ssh", etc / "nixos/lib", etc / "nixos-containers", etc / "app"):
        path.mkdir(parents=True)
    for name in ("web.conf",):
        (store / name).touch()
    (etc / "declared.conf").symlink_to("/nix/store/x-declared.conf")
    (etc / "nixos-containers/web.conf").symlink_to(store / "web.conf")
    for name in (
        *("copy.conf", "machine-id", "ssh/ssh_host_ed25519_key", "nixos/lib/x.nix", "shadow-"),
        *("app/by hand.conf", "app/odd\nname", "ssh/sshd_config.d", "nixos-containers/old.conf"),
        *("NetworkManager/system-connections/home", "NetworkManager/dispatcher.d/99-evil"),
        *("wpa_supplicant/imperative.conf", "wpa_supplicant/bin/evil.sh"),
        *("ssh/ssh_host_x/evil.sh", "resolv.conf.sh", "cups/ppd/p.ppd", "rancher/k3s/config.yaml"),
    ):
        (etc / name).parent.mkdir(parents=True, exist_ok=True)
        (etc / name).touch()
    (etc / "linked").symlink_to("/root/hidden")
    (etc / ".clean").write_text("copy.conf\n")
    # The last line may lack its end, and not every line is an account.
    (etc / "passwd").write_text("root:x:0:0::/root:/bin/sh\n#old:x\n+::::::\nbob:x:1001:100::/:")


def test_only_what_somebody_put_into_etc_counts(tmp_path: Path) -> None:
    make_etc(tmp_path / "etc")
    found = ask(moved(drift(), "/etc", str(tmp_path / "etc")))
    assert found is not None
    assert found.files == (
        *("NetworkManager/dispatcher.d/99-evil", "app/by hand.conf", "app/odd\nname", "linked"),
        *(
            "rancher/k3s/config.yaml",
            "resolv.conf.sh",
            "ssh/ssh_host_x/evil.sh",
            "ssh/sshd_config.d",
            "wpa_supplicant/bin/evil.sh",
        ),
    )
    assert found.containers == ("old",)
    assert found.accounts == ("root", "bob")


def test_an_overlay_on_etc_is_asked_for_its_upper_directory(tmp_path: Path) -> None:
    etc, upper = tmp_path / "etc", tmp_path / "upper"
    make_etc(etc)
    upper.mkdir()
    (upper / "by-hand.conf").touch()
    mounts = tmp_path / "mounts"
    probe = moved(moved(drift(), "/etc", str(etc)), "/proc/self/mounts", str(mounts))

    mounts.write_text(f"overlay {etc} overlay rw,lowerdir=/l,upperdir={upper},workdir=/w 0 0\n")
    found = ask(probe)
    assert found is not None
    assert found.files == ("by-hand.conf",)

    # As a systemd initrd has mounted it.
    mounts.write_text(f"overlay {etc} overlay rw,upperdir=/sysroot{upper},workdir=/w 0 0\n")
    found = ask(probe)
    assert found is not None
    assert found.files == ("by-hand.conf",)

    mounts.write_text(f"overlay {etc} overlay rw,upperdir=/sysroot/gone,workdir=/w 0 0\n")
    assert ask(probe) is None

    mounts.write_text(f"overlay {etc} overlay ro,lowerdir=/l 0 0\n")
    found = ask(probe)
    assert found is not None
    assert found.files == ()


@pytest.mark.parametrize("gone", ["passwd", "nixos"])
def test_a_program_that_dies_is_no_answer(tmp_path: Path, gone: str) -> None:
    etc = tmp_path / "etc"
    make_etc(etc)
    probe = moved(drift(), "/etc", str(etc))
    if gone == "passwd":
        (etc / "passwd").unlink()
    else:
        probe = moved(probe, "find ", "false ")
    assert ask(probe) is None


def test_half_an_answer_is_none() -> None:
    found = parsed(drift(), "=roles\ncurrent=/nix/store/t\n=generations\n")
    assert found is None
    assert "could not be read" in verdict("DRIFT-001", found).reason


def test_the_system_is_the_flakes_or_another_generation_or_none() -> None:
    assert verdict("DRIFT-001", of()).outcome is Outcome.PASSED
    older = verdict("DRIFT-001", of(OLD, kept={7: OLD, 8: TOPLEVEL}))
    assert older.outcome is Outcome.FAILED
    assert (
        f"{OLD} runs, generation 7; the flake's is {TOPLEVEL}, generation 8 there" in older.reason
    )
    other = verdict("DRIFT-001", of(OLD))
    assert "no generation of the profile" in other.reason
    assert "not in its profile" in other.reason
    assert verdict("DRIFT-001", of(), toplevel="").outcome is not Outcome.PASSED


def test_a_specialisation_of_the_flakes_system_is_the_flakes() -> None:
    gaming = {"/nix/store/gaming": TOPLEVEL, "/nix/store/older": OLD}
    own = of("/nix/store/gaming", specialisations=gaming)
    assert verdict("DRIFT-001", own).outcome is Outcome.PASSED
    other = of("/nix/store/older", specialisations=gaming)
    assert verdict("DRIFT-001", other).outcome is Outcome.FAILED


def test_accounts_are_held_against_the_declared_ones() -> None:
    users = {"alice": user("alice")}
    good = verdict("DRIFT-004", of(accounts=("root", "nobody", "alice")), users=users)
    assert good.outcome is Outcome.PASSED
    bad = verdict("DRIFT-004", of(accounts=("root", "alice", "bob")), users=users)
    assert bad.outcome is Outcome.FAILED
    assert "bob" in bad.reason
    assert "alice" not in bad.reason
    off = {"alice": replace(user("alice"), enabled=False)}
    assert "alice" in verdict("DRIFT-004", of(accounts=("root", "alice")), users=off).reason
    unread = verdict("DRIFT-004", of(accounts=("bob",)), unreadable=("users.users",))
    assert unread.outcome is not Outcome.PASSED


def test_a_machine_that_was_just_started_from_the_flake_is_not_asked() -> None:
    control = load_catalogue().control("DRIFT-001")
    for backend in (BackendName.VM, BackendName.CONTAINER):
        found = judge(control, host_config(), {"drift": of(OLD)}, backend)
        assert found.outcome is Outcome.NOT_APPLICABLE
