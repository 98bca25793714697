from __future__ import annotations

import pytest

from pytest_nixos.nix.config.secrets import SecretUse
from pytest_nixos.nix.config.unit import Unit, parse_unit_file
from pytest_nixos.test_secrets.choose import by_name, kinds_by_path
from pytest_nixos.test_secrets.kind import Kind


@pytest.mark.parametrize(
    ("name", "length", "kind"),
    [
        ("alice-password-hash", None, Kind.PASSWORD_HASH),
        ("users/alice/hashedPassword", 106, Kind.PASSWORD_HASH),
        ("wg0", 44, Kind.WIREGUARD_KEY),
        ("wireguard/private-key", None, Kind.WIREGUARD_KEY),
        ("wg-easy-password", 20, Kind.PASSWORD),
        ("wireguard-psk", 44, Kind.WIREGUARD_PRESHARED_KEY),
        ("swag", None, Kind.PASSWORD),
        ("ssh_host_ed25519_key", None, Kind.SSH_KEY),
        ("ssh_host_rsa_key", None, Kind.SSH_RSA_KEY),
        ("ssh_host_ed25519_key.pub", None, Kind.SSH_PUBLIC_KEY),
        ("tls-cert", None, Kind.CERTIFICATE),
        ("nginx/server.key", None, Kind.CERTIFICATE_KEY),
        ("ca.crt", None, Kind.CA_CERTIFICATE),
        ("app.env", None, Kind.ENVIRONMENT),
        ("vaultwarden-environment", None, Kind.ENVIRONMENT),
        ("client.json", None, Kind.JSON),
        ("session", 44, Kind.BASE64),
        ("session", 64, Kind.HEX),
        ("api-token", 12, Kind.PASSWORD),
        ("certbot-dns-token", None, Kind.PASSWORD),
    ],
)
def test_names_and_lengths_speak(name: str, length: int | None, kind: Kind) -> None:
    assert by_name(name, length) is kind


def test_what_the_host_uses_a_file_for_comes_first() -> None:
    unit = Unit(
        name="a.service",
        enabled=True,
        settings=parse_unit_file("[Service]\nEnvironmentFile=/run/secrets/a\n"),
        wanted_by=(),
    )
    uses = [SecretUse(option="o", path="/run/secrets/b", kind="password-hash")]
    assert kinds_by_path(uses, {"a.service": unit}) == {
        "/run/secrets/a": Kind.ENVIRONMENT,
        "/run/secrets/b": Kind.PASSWORD_HASH,
    }
