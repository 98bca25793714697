"""Lines of authorized_keys that sshd would pass over."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from checks.ssh.keys import unusable

# The same in each process: it is part of the tests' names.
ED = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
GOOD = [
    key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    for key in (ED, ec.generate_private_key(ec.SECP256R1()), rsa.generate_private_key(65537, 2048))
]
LINE = GOOD[0]


@pytest.mark.parametrize("line", GOOD, ids=["ed25519", "ecdsa", "rsa"])
@pytest.mark.parametrize(
    "form", ["{}", "{} ada@laptop", '  command="echo \\"ssh-rsa AAAA\\"",restrict {} x']
)
def test_a_key_is_taken(line: str, form: str) -> None:
    assert unusable(form.format(line)) == ""


@pytest.mark.parametrize("line", ["", "  ", "# ssh-ed25519 AAAA"])
def test_a_line_without_a_key_is_none_to_mend(line: str) -> None:
    assert unusable(line) == ""


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (f"{LINE[:-3]} ada", "no base64"),
        (f"{LINE[:-4]} ada", "cut off"),
        (LINE.replace(" ", "", 1), "names no kind of key"),
        ("ssh-ed25519 AAAA... ada", "no base64"),
        (LINE.replace("ssh-ed25519", "ssh-rsa", 1), "holds another kind of key"),
        (LINE.replace("ssh-ed25519", "ssh-ed25591", 1), "names no kind of key"),
        ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAAA== ada", "wrong length"),
        (LINE.partition(" ")[2], "names no kind of key"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----", "names no kind of key"),
    ],
)
def test_a_key_that_was_copied_badly(line: str, why: str) -> None:
    assert why in unusable(line)
