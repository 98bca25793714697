"""How kinds find a control's value in what was read."""

from __future__ import annotations

import base64
import datetime as dt

import pytest

from pytest_nixos.observe.fact import Lacking
from pytest_nixos.standards.control.config_facts import CONFIG_FACTS
from pytest_nixos.standards.control.seen import Seen, Unseen
from pytest_nixos.standards.kinds import KINDS
from pytest_nixos.standards.kinds.files import certificate_end, file_settings
from tests.unit.standards.samples import TODAY, certificate, host_config, sample_unit


def test_sshd_settings_that_are_declared_and_in_force() -> None:
    declared = {
        "PermitRootLogin": "prohibit-password",
        "UsePAM": True,
        "Macs": ["a", "b"],
        "AllowUsers": None,
        "ClientAliveInterval": 0,
    }
    host = host_config(options={"services.openssh.settings": declared})
    running = {
        "permitrootlogin": "without-password", "usepam": "yes", "macs": ["a", "b"], "clientaliveinterval": "0",
    }  # fmt: skip
    find = KINDS["sshd-declared"].find
    assert find({"settings": running}, {}, host) == Seen([])
    found = find({"settings": {**running, "usepam": "no"}}, {}, host)
    assert found == Seen(["UsePAM is 'no', declared 'yes'"])
    assert isinstance(find({"settings": Lacking("no sshd")}, {}, host), Unseen)


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ("PasswordAuthentication no", "PasswordAuthentication no in services.openssh.extraConfig"),
        ("Banner none\nPort 22\nPort 2222\nBanner /etc/issue", "Banner /etc/issue in services."),
        ("# PasswordAuthentication no", ""),
        ("passwordauthentication yes\nUsePAM=yes", ""),
        ("Match User git\n  PasswordAuthentication no", ""),
        ("Banner none\nMaxAuthTries 3\nListenAddress 10.0.0.1\nListenAddress 10.0.0.2", ""),
    ],
)
def test_a_line_of_sshd_that_comes_too_late_counts_for_nothing(extra: str, said: str) -> None:
    declared = {"PasswordAuthentication": True, "UsePAM": True, "Banner": "/etc/motd"}
    options = {"services.openssh.settings": declared, "services.openssh.extraConfig": extra}
    running = {"passwordauthentication": "yes", "usepam": "yes", "banner": "/etc/motd"}
    found = KINDS["sshd-declared"].find({"settings": running}, {}, host_config(options=options))
    assert isinstance(found, Seen)
    assert [text.partition(" counts")[0] for text in found.value] == (
        [f"{said}openssh.extraConfig" if said.endswith("services.") else said] if said else []
    )


def test_settings_of_files() -> None:
    text = "# c\n[Section]\nStorage=none\nUMASK\t077\n  minlen = 15\nStorage=external\n"
    assert file_settings(text) == {"Storage": "external", "UMASK": "077", "minlen": "15"}


def test_the_end_of_a_certificate() -> None:
    end = certificate_end(certificate(days_left=30))
    assert end is not None
    assert (end - dt.datetime.now(dt.UTC)).days == 30
    assert certificate_end("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----") is None
    assert certificate_end("nothing") is None
    bundle = f"subject=sample\n{certificate(days_left=30)}{certificate(days_left=900)}"
    assert (certificate_end(bundle) or end) - end < dt.timedelta(minutes=1)


def test_what_only_looks_like_a_certificate_has_no_end() -> None:
    validity = b"\x30\x1e\x17\x0d200101000000Z\x17\x0d490101000000Z"
    body = base64.b64encode(validity).decode()
    text = f"-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n"
    assert certificate_end(text) is None


def test_secret_files_in_the_store() -> None:
    units = {
        name: sample_unit(name, **{key: (value,)})
        for name, key, value in (
            ("a.service", "LoadCredential", "token:/run/secrets/token"),
            ("b.service", "LoadCredential", "token:/nix/store/x-token"),
            ("c.service", "EnvironmentFile", "/nix/store/x-settings.env"),
        )
    }
    options = {
        "users.users": {
            "ann": {"hashedPasswordFile": "/nix/store/x-ann"},
            "bob": {"hashedPasswordFile": "/run/secrets/bob"},
        },
        "services.openssh.hostKeys": [{"path": "/nix/store/x-key", "type": "ed25519"}],
    }
    fact = CONFIG_FACTS["secret-files-in-store"]
    assert fact.read(host_config(units=units, options=options), TODAY) == Seen(
        [
            "b.service: LoadCredential",
            "services.openssh.hostKeys.0.path",
            "users.users.ann.hashedPasswordFile",
        ]
    )
