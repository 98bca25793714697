"""Controls about declared secrets: what a host with good habits must not be blamed for."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_nixos.nix.declared import Unit
from pytest_nixos.standards.config_facts import CONFIG_FACTS
from pytest_nixos.standards.kinds.flake import SOURCE_FACTS
from pytest_nixos.standards.seen import Seen, Unseen
from tests.unit.standards.samples import TODAY, host_config, sample_unit


def _read(fact: str, options: dict[str, Any], **changes: Any) -> Seen | Unseen:
    return CONFIG_FACTS[fact].read(host_config(options=options, **changes), TODAY)


_ADMIN = "services.grafana.settings.security.admin_password"
_KEY = "services.grafana.settings.security.secret_key"


@pytest.mark.parametrize(
    ("options", "blamed"),
    [
        ({_ADMIN: "admin", _KEY: "SW2YcwTIb9zpOOhoPsMm", "services.grafana.enable": True}, []),
        ({_ADMIN: "Steep-Hill-48", "services.grafana.enable": False}, []),
        ({_ADMIN: "$__file{/run/secrets/grafana}", "services.grafana.enable": True}, []),
        ({_ADMIN: "$__env{ADMIN}", "services.grafana.enable": True}, []),
        ({_ADMIN: "Steep-Hill-48", "services.grafana.enable": True}, [_ADMIN]),
        ({_ADMIN: "Steep-Hill-48"}, [_ADMIN]),
        ({_ADMIN: "abc", "services.grafana.enable": True}, [_ADMIN]),
    ],
)
def test_options_that_hold_a_secret_are_those_that_the_host_set(
    options: dict[str, Any], blamed: list[str]
) -> None:
    assert _read("inline-secrets", options) == Seen(blamed)


def test_a_path_unit_reads_no_secret() -> None:
    path = Unit(
        name="app.path",
        enabled=True,
        settings={"Path": {"PathChanged": ("/run/secrets/app",)}},
        wanted_by=(),
    )
    seen = _read("secrets-without-credentials", {}, units={"app.path": path})
    assert isinstance(seen, Unseen)
    assert not seen.applicable


def test_a_service_that_reads_a_file_still_counts() -> None:
    unit = sample_unit("app.service", EnvironmentFile=("/run/secrets/app",))
    seen = _read("secrets-without-credentials", {}, units={"app.service": unit})
    assert seen == Seen(["app.service"])


def test_declared_secrets_that_no_unit_names_are_told() -> None:
    options: dict[str, Any] = {"sops.secrets": {"ada-password": {}}, "age.secrets": {"wifi": {}}}
    assert _read("secrets-without-backend", options, units={}) == Seen([])
    seen = _read("secrets-without-credentials", options, units={})
    assert isinstance(seen, Unseen)
    assert "2 are declared" in seen.reason
    nothing = _read("secrets-without-backend", {}, units={})
    assert isinstance(nothing, Unseen)
    assert "declares no secret" in nothing.reason


@pytest.mark.parametrize(
    ("path", "text", "blamed"),
    [
        ("secrets/db.yaml", "\0GITCRYPT\0\x1f\x8b\x02", False),
        ("secrets/empty.yaml", "", False),
        ("secrets/empty.age", "\n", False),
        ("secrets/app.env", "TOKEN=ENC[AES256_GCM,data:x]\nsops_mac=ENC[AES256_GCM,z]\n", False),
        ("secrets/cut.yaml", "a: ENC[AES256_GCM,data:x]\n" * 3, False),
        ("secrets/vault.yml", "$ANSIBLE_VAULT;1.1;AES256\n6338\n", False),
        ("token.age", "age-encryption.org/v1\n-> X25519 x\n", False),
        ("token.age", "-----BEGIN AGE ENCRYPTED FILE-----\nYWdl\n", False),
        ("secrets/db.yaml", "password: hunter2\n", True),
        ("secrets/note.yaml", "hint: see age-encryption.org\npassword: hunter2\n", True),
        ("token.age", "hunter2\n", True),
    ],
)  # fmt: skip
def test_files_of_secrets_that_are_not_encrypted(path: str, text: str, *, blamed: bool) -> None:
    found = SOURCE_FACTS["unencrypted-secrets"].find(path, text)
    assert found == ([path] if blamed else [])


@pytest.mark.parametrize(
    ("variable", "blamed"),
    [
        ("DATABASE_URL=postgres://app:s3cr3t-Winter@db.internal/app", True),
        ("SMTP_PASS=Winter-is-long-9", True),
        ("API_TOKEN=abc", True),
        ("DATABASE_URL=postgres:///app?host=/run/postgresql", False),
        ("TOKEN=%d/token", False),
        ("PASSWORD=/run/secrets/x", False),
        ("PASSWORD=${PASSWORD}", False),
        ("PASSWORD_STORE_DIR=/var/lib/pass", False),
    ],
)
def test_secrets_in_the_environment_of_a_unit(variable: str, *, blamed: bool) -> None:
    unit = sample_unit("a.service", Environment=(f'"{variable}"',))
    name = variable.partition("=")[0]
    seen = _read("secret-environment", {}, units={"a.service": unit})
    assert seen == Seen([f"a.service: {name}"] if blamed else [])
