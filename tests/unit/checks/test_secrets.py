"""What the checks of secrets make of a host's declarations and of what lies in the guest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from checks.secrets.leaks import SEARCH, searched
from checks.secrets.missing import lacking_of
from checks.secrets.on_disk import SecretFile, differences, generation_of
from pytest_nixos import Unit
from pytest_nixos.nix.config.secrets import Secret, SecretModule, Secrets, SecretUse
from pytest_nixos.test_secrets.archive import make_secrets
from tests.unit.observe.here import here
from tests.unit.standards.samples import host_config, sample_unit

TOKEN = Secret(
    name="token",
    module=SecretModule.SOPS,
    path="/run/secrets/token",
    format="yaml",
    key="token",
    owner="app",
    group="app",
    mode="0440",
)
FILE = SecretFile(
    mode=0o440,
    users=("app", "999"),
    groups=("app", "998"),
    changed_s=7,
    real_path="/run/secrets.d/3/token",
)


def test_what_is_as_declared_has_no_difference() -> None:
    assert differences(TOKEN, FILE) == {}
    assert differences(msgspec.structs.replace(TOKEN, owner="999", mode="440"), FILE) == {}
    assert generation_of(FILE) == 3
    assert generation_of(msgspec.structs.replace(FILE, real_path="/var/lib/token")) is None


def test_owner_group_and_mode_are_told_apart() -> None:
    assert differences(msgspec.structs.replace(TOKEN, mode="0400"), FILE) == {
        "mode": ("0400", "0440")
    }
    assert differences(msgspec.structs.replace(TOKEN, owner="", group="keys"), FILE) == {
        "owner": ("0", "app"),
        "group": ("keys", "app"),
    }
    # chmod takes more than numbers; what is not understood is not judged.
    assert differences(msgspec.structs.replace(TOKEN, mode="u=r"), FILE) == {}


def test_before_there_are_users_files_are_roots() -> None:
    early = msgspec.structs.replace(TOKEN, owner="root", needed_for_users=True)
    assert (
        differences(early, msgspec.structs.replace(FILE, users=("root", "0"), groups=("root", "0")))
        == {}
    )
    assert differences(early, FILE).keys() == {"owner", "group"}


def test_files_that_no_module_brings() -> None:
    unit = sample_unit(
        "app.service",
        EnvironmentFile=("/etc/app.env", "-/etc/may-lack", "/nix/store/x/env", TOKEN.path),
        LoadCredential=("t:/root/token", "cert:/var/lib/acme/x/key.pem"),
        SetCredentialEncrypted=("pw: abc",),
    )
    idle = msgspec.structs.replace(
        sample_unit("idle.service", EnvironmentFile=("/etc/idle",)), wanted_by=()
    )
    uses = (
        SecretUse(option="users.users.a.hashedPasswordFile", path="/pw", kind="password-hash"),
        SecretUse(option="services.openssh.hostKeys", path="/etc/ssh/key", kind="ssh-key"),
        SecretUse(
            option="networking.wg-quick.interfaces.wg0.privateKeyFile",
            path="/wg",
            kind="wireguard-key",
        ),
    )
    units = {u.name: u for u in (unit, idle, sample_unit("wg-quick-wg0.service"))}
    host = host_config(units=units, secrets=Secrets(secrets=(TOKEN,), uses=uses))
    found = {lack.about: (lack.path, lack.unit, lack.kind) for lack in lacking_of(host)}
    assert found == {
        "app.service: EnvironmentFile": ("/etc/app.env", "app.service", "kind:environment"),
        "app.service: LoadCredential": ("/root/token", "app.service", "kind:password"),
        "app.service: SetCredentialEncrypted=pw": ("", "app.service", "kind:password"),
        "users.users.a.hashedPasswordFile": ("/pw", "", "kind:password-hash"),
        "networking.wg-quick.interfaces.wg0.privateKeyFile": (
            "/wg",
            "wg-quick-wg0.service",
            "kind:wireguard-key",
        ),
    }


def _job(kind: str, **service: tuple[str, ...]) -> list[Unit]:
    """Return a service that nothing wants, and what starts it."""
    starting = Unit(name=f"job.{kind}", enabled=True, settings={}, wanted_by=(f"{kind}s.target",))
    return [msgspec.structs.replace(sample_unit("job.service", **service), wanted_by=()), starting]


@pytest.mark.parametrize(
    ("service", "about"),
    [
        ({"EnvironmentFile": ("/etc/job.env",)}, "EnvironmentFile"),
        ({"Environment": ('"RESTIC_PASSWORD_FILE=/etc/pw"',)}, "RESTIC_PASSWORD_FILE"),
        ({"Environment": ('"BORG_PASSCOMMAND=cat /root-pw"',)}, "BORG_PASSCOMMAND"),
        ({"Environment": ("APP_SECRET_FILE=/var/lib/job/secret",)}, ""),
        ({"Environment": ("SSL_CERT_FILE=/etc/ssl/certs/ca.crt",)}, ""),
    ],
)
def test_files_of_what_a_timer_or_path_starts(
    service: dict[str, tuple[str, ...]], about: str
) -> None:
    wanted = [f"job.service: {about}"] if about else []
    for kind in ("timer", "path"):
        units = {u.name: u for u in _job(kind, **service)}
        assert [lack.about for lack in lacking_of(host_config(units=units))] == wanted
    job, timer = _job("timer", **service)
    unwanted = msgspec.structs.replace(timer, wanted_by=())
    units = {u.name: u for u in (job, unwanted)}
    assert lacking_of(host_config(units=units)) == ()
    named = msgspec.structs.replace(timer, settings={"Timer": {"Unit": ("other.service",)}})
    units = {u.name: u for u in (job, named)}
    assert lacking_of(host_config(units=units)) == ()


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("-----BEGIN X-----\nMIIabcdefghijkl\n-----END X-----\n", "MIIabcdefghijkl"),
        ("A=short\nTOKEN=abcdefghijklmnop\n", "abcdefghijklmnop"),
        ("YWJjZGVmZ2hpamtsbW5vcHFyc3Q=", "YWJjZGVmZ2hpamtsbW5vcHFyc3Q="),
        ("short", None),
    ],
)
def test_a_part_that_is_the_secrets_own_is_searched(text: str, part: str | None) -> None:
    made = make_secrets(host_config(secrets=Secrets(secrets=(TOKEN,))))
    made = replace(made, values={"sops:token": {"token": text}})
    assert searched(made) == ({} if part is None else {TOKEN: (part,)})


@pytest.mark.parametrize("place", ["etc", "etc/static"])
def test_what_everybody_reads_in_etc_is_searched(tmp_path: Path, place: str) -> None:
    etc = tmp_path / "etc"
    (tmp_path / place / "app").mkdir(parents=True)
    for name, mode in {"open": 0o444, "kept": 0o400, "other": 0o444}.items():
        file = tmp_path / place / "app" / name
        file.write_text("nothing" if name == "other" else "key = tr0ub4dor-and-three")
        file.chmod(mode)
    patterns = tmp_path / "patterns"
    patterns.write_text("tr0ub4dor-and-three\n")
    script = SEARCH.replace("/etc", str(etc)).replace(
        "/run/pytest-nixos-secrets/.patterns", str(patterns)
    )
    found = here(script.replace("/proc/[0-9]*", f"{tmp_path}/none")).stdout_text.splitlines()
    assert found == [f"{tmp_path / place}/app/open"]
