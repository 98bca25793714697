"""What public hosts have that looks like a secret: the fingerprint of a signing key, values of sops."""

from __future__ import annotations

import base64
import hashlib

import pytest

from pytest_nixos.secrets.pairs import by_name
from pytest_nixos.secrets.scan import find_secrets

FINGERPRINT = "5D1C238558CF0FC39400BA2E" + "E2256EAE7390AF2C"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('git.signing = {\n  signByDefault = true;\n  key = "@";\n};\n', 0),
        ('signing = {\n  key = "@!";\n};\n', 0),
        ('signing = {\n  gpgPath = "${pkgs.gnupg}/bin/gpg2";\n  key = "@";\n};\n', 0),
        ('git.signing.key = "@";\n', 0),
        ('api = {\n  key = "@";\n};\n', 1),
        ('signing = { };\napi = {\n  key = "@";\n};\n', 1),
    ],
)
def test_a_fingerprint_below_signing_is_no_secret(text: str, found: int) -> None:
    text = text.replace("@", FINGERPRINT)
    assert len(list(by_name(text, name="git.nix"))) == found


def test_what_sops_encrypted_is_no_secret_whatever_it_looks_like() -> None:
    random = base64.b64encode(hashlib.sha512(b"x").digest()).decode()
    assert len(random) == 88
    value = f"ENC[AES256_GCM,data:{random},iv:{random[:44]},tag:{random[:24]},type:str]"
    text = f"admin-password: {value}\nplain: cache.example-1:{random}\n"
    (hit,) = find_secrets(text, name="secrets.yaml")
    assert (hit.line, hit.kind) == (2, "signing key of Nix")


@pytest.mark.parametrize(
    "reference",
    [
        "github:ada/nix-secrets",
        "gitlab:ada/secrets/main?dir=a",
        "sourcehut:~ada/secrets",
        "path:/home/ada/secrets",
    ],
)
def test_an_input_that_is_called_secrets_is_none(reference: str) -> None:
    text = f'inputs.nix-secrets = {{\n  # The access token ends.\n  url = "{reference}";\n}};\n'
    assert find_secrets(text, name="flake.nix") == ()
    (hit,) = find_secrets(text.replace(reference, PASSWORD), name="flake.nix")
    assert hit.line == 3


PASSWORD = "Xk7" + "-moor-Tide-91"


@pytest.mark.parametrize("kind", ["AGE ENCRYPTED FILE", "PGP MESSAGE"])
def test_only_the_encrypted_block_of_a_file_is_unreadable(kind: str) -> None:
    inside = f"password: {PASSWORD}"
    block = f"-----BEGIN {kind}-----\n\n{inside}\n-----END {kind}-----\n"
    assert find_secrets(block, name="x") == ()
    (hit,) = find_secrets(f"{block}admin_password: {PASSWORD}\n", name="x")
    assert hit.line == 5


def test_lines_of_ansible_vault_are_unreadable_and_those_behind_are_not() -> None:
    vault = "$ANSIBLE_VAULT;1.1;AES256\n" + "61" * 40 + "\n" + "62" * 20 + "\n"
    assert find_secrets(vault, name="x") == ()
    (hit,) = find_secrets(f"{vault}admin_password: {PASSWORD}\n", name="x")
    assert hit.line == 4


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (f"password_unencrypted: {PASSWORD}\n", 1),
        (f"db:\n  password: |\n    {PASSWORD}\n  port: 1\n", 3),
        (f"password: >-\n  {PASSWORD}", 2),
    ],
)
def test_values_that_stay_readable_in_yaml(text: str, line: int) -> None:
    (hit,) = find_secrets(text, name="secrets.yaml")
    assert hit.line == line


@pytest.mark.parametrize(
    "text", ["password: |\n  run this\n", "port: |\n  x8\n", "password: |\n  a\n  b\n"]
)
def test_texts_in_yaml_are_no_passwords(text: str) -> None:
    assert find_secrets(text, name="secrets.yaml") == ()


RANDOM = base64.b64encode(hashlib.sha256(b"y").digest()).decode()


@pytest.mark.parametrize(
    "text",
    [
        # Of a package's lock file.
        '"minipass": "^7.1.3",',
        '"two-pass": "~2.0.1 || >=3",',
        # What a module of secrets says of one beside its file.
        'secrets."sync-secrets" = {\n  file = ./sync.age;\n  owner = "firefox-syncserver";\n};',
        'starter-with-secrets = {\n  description = "A configuration with secrets";\n};',
        # Files, addresses, times and texts that a program replaces.
        "certtool --load-privkey privkey.pem --outfile other",
        'apiKey = "!rbw get inference-api-key";',
        'client_secret = "!env_var HASS_OIDC_SECRET";',
        'password = "%env(KIMAI_LDAP_PASSWORD)%";',
        'refresh_token = "3 months";',
        'ipv6AcceptRAConfig.Token = "::521a:c5ff:fefe:65d9";',
        'grpcPass = "unix:/run/v2ray/v2ray.sock";',
        "ALTER ROLE view WITH PASSWORD :'role_password';",
        'lib.filter (lib.hasPrefix "password=") (lib.splitString "x" text);',
        # Names of secrets.
        'SMTP_PASSWORD = "mealie-fastmail-smtp-password";',
        'OPENAI_API_KEY = "mealie-openai-api-key";',
        'apiKey = "LLAMA_SWAP_API_KEY";',
        'entries."p0-api-key" = "p0-api-key";',
        "existingSecret: paperless-secrets",
        'passwordSecret = "restic/password";',
        'urlSecret = "monitoring/healthchecks-url";',
        'secret = "__OIDC_CLIENT_SECRET__";',
        'key = "ssh/personal/root_only/nix-builder";',
        # Public by nature.
        f'key = "cache.example.org-1:{RANDOM}";',
        f'key = "mordor.lan:{RANDOM.rstrip("=")}";',
        f'"publickey": "{FINGERPRINT}",',
        'PASSWORD_STORE_KEY = "37CE23CFC62D8A49";',
        '"key": "Q-8d6fc646-b4c9-4e51-ab40-3a2a91aa1933-0",',
        # Words that mean something else.
        '{ key = "XF86AudioLowerVolume"; command = "x"; }',
        'echo "<key>_CFURLStringType</key><integer>0</integer>"',
        "  --ts-auth-key       Ephemeral, non-reusable tailscale auth key",
        'nvenc_twopass = "full_res";',
        'NOTBYPASS = "UPS no longer on bypass";',
        "pass 'happy path exits 0'",
        'pass "$mode-last-success-updated"',
        'pass "timer-active"',
        'description = "OAuth2 authorization endpoint.";',
        "# uses secrets of services (sonarr/api-key, radarr/api-key, etc.)",
        'SCAN_PASS = "pass"',
        'enable_pin = "!PC3";',
        'endstop_pin = "probe:z_virtual_endstop";',
        "sensor_pin: ^PB1",
    ],
)
def test_what_public_flakes_write_beside_such_names_is_no_secret(text: str) -> None:
    hits = find_secrets(f"{text}\n", name="x.nix" if text.rstrip().endswith(";") else "x.yaml")
    assert [hit for hit in hits if not hit.placeholder] == []


@pytest.mark.parametrize(
    "text",
    [
        f'"userpass": "{PASSWORD}",',
        f'secrets."sync-secrets" = {{\n  owner = "ada";\n  value = "{PASSWORD}";\n}};',
        f"certtool --load-privkey {PASSWORD}",
        f'apiKey = "!{PASSWORD}";',
        f'client_secret = "{RANDOM}";',
        f"password: {PASSWORD} # 3 months",
        f"ALTER ROLE view WITH PASSWORD '{PASSWORD}';",
        f"set \"password='{PASSWORD}'\"",
        'smtp_password = "summer-smtp-holiday"',
        f'key = "{RANDOM}{RANDOM}";',
        'sim_pin = "4711"',
        f"  --ts-auth-key {PASSWORD}",
        f"pass '{PASSWORD}'",
        f'headers."X-API-Key: {PASSWORD}"',
    ],
)
def test_a_secret_in_the_same_place_is_found(text: str) -> None:
    assert find_secrets(f"{text}\n", name="x.yaml")


def test_a_sealed_secret_is_encrypted_and_a_plain_one_beside_it_is_not() -> None:
    sealed = f"kind: SealedSecret\nspec:\n  encryptedData:\n    token: AgB{RANDOM}{RANDOM}\n"
    plain = f"---\nkind: ConfigMap\ndata:\n  password: {PASSWORD}\n"
    (hit,) = find_secrets(f"---\n{sealed}{plain}", name="sealed.yaml")
    assert hit.line == 9


@pytest.mark.parametrize("directive", ["LoadCredential", "LoadCredentialEncrypted"])
def test_a_credential_that_is_read_from_a_file_is_no_secret(directive: str) -> None:
    text = f'serviceConfig.{directive} = "pw:/etc/restic/password";\n'
    assert find_secrets(text, name="host.nix") == ()
    named = f'serviceConfig.password = "{PASSWORD}";\n'
    assert find_secrets(named, name="host.nix")


#: The first part of a token, as the sample configuration of telegraf has it.
HEADER = base64.b64encode(b'{"alg":"HS256","typ":"JWT"}').decode()


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (HEADER, 0),
        (HEADER.rstrip("="), 0),
        # What docker logs in with is JSON in base64 too.
        (base64.b64encode(b'{"username":"ada","password":"Xk7-moor-91"}').decode(), 1),
        (base64.b64encode(b'{"alg":"HS256","k":"Xk7-moor-Tide-91-x"}').decode(), 1),
        ("a1234567-40c7-9048-7bae-" + "378687048181", 0),
        ("c7e1f3a9-40c7-9048-7bae-" + "378687048181", 1),
    ],
)
@pytest.mark.parametrize("comment", ["", "#   # "])
def test_the_samples_of_a_configuration_are_no_secrets(
    value: str, found: int, comment: str
) -> None:
    hits = find_secrets(f'{comment}auth_token = "{value}"\n', name="telegraf.conf")
    assert len([hit for hit in hits if not hit.placeholder]) == found
