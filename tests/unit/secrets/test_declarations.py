"""Controls about declared secrets: what a host with good habits must not be blamed for."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_nixos.nix.config.unit import Unit
from pytest_nixos.standards.control.config_facts import CONFIG_FACTS
from pytest_nixos.standards.control.seen import Seen, Unseen
from pytest_nixos.standards.kinds.flake import SOURCE_FACTS
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


@pytest.mark.parametrize(
    ("path", "text", "kind"),
    [
        ("hosts/web.nix", 'DATABASE_URL = "postgres://web:tr0ub4dor-and-three@db/web";', "address"),
        ("wg0.conf", "[Interface]\nPrivateKey = QK4m0sVb7kXcU1n9Zr3tJ5wLhG8yPdE2oFqBvR6iT0M=", "PrivateKey"),
        ("docs/note.txt", "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gtZW\nQyNTUxOQAAACDq7mGkV3sW9xJc2LrT5nYp8zHbXe1uKf0Ai4oRv6DMwQAAAJh3kq2Zd5\n-----END OPENSSH PRIVATE KEY-----", "private key"),
        # What is encrypted, or known to everybody, or stands elsewhere, is no secret.
        ("secrets/a.yaml", "token: ENC[AES256_GCM,data:Zm9v,iv:YmFy,tag:eA==,type:str]\nsops:\n  mac: ENC[x]", ""),
        ("secrets/b.age", "age-encryption.org/v1\n-> ssh-ed25519 AAAA\nsecret", ""),
        ("secrets/c.env", "\0GITCRYPT\0\x8f\x1c", ""),
        ("hosts/a.nix", 'password = "changeme"; token = "your-token-here";', ""),
        ("hosts/b.nix", 'passwordFile = config.sops.secrets.db.path; apiKeyFile = "/run/agenix/key";', ""),
        ("keys.nix", 'alice = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0mZ2Xk3i0k7h0cT5n2Qv1yqk8m7e5w6r4t3y2u1i0o";', ""),
        # A whole file of secrets that nothing encrypts is another control's.
        ("secrets/d.yaml", "token: tr0ub4dor-and-three", ""),
    ],
)  # fmt: skip
def test_plain_secrets_in_a_source(path: str, text: str, kind: str) -> None:
    found = SOURCE_FACTS["plain-secrets"].find(path, text)
    if not kind:
        assert found == []
        return
    assert len(found) == 1 and kind in found[0] and found[0].startswith(f"{path}:")
    assert "tr0ub4dor" not in found[0] and "QK4m0" not in found[0]
