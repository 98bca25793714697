"""Keys that are made for one login."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.serialization import load_ssh_private_key

from pytest_nixos.errors import MachineError
from pytest_nixos.machine.login.keys import new_key


@pytest.mark.parametrize(
    ("accepted", "kind"),
    [
        (("ssh-ed25519", "rsa-sha2-512"), b"ssh-ed25519 "),
        (("sk-ssh-ed25519@openssh.com", "ecdsa-sha2-nistp384"), b"ecdsa-sha2-nistp384 "),
        (("rsa-sha2-512",), b"ssh-rsa "),
    ],
)
def test_a_key_is_of_a_kind_that_sshd_accepts(accepted: tuple[str, ...], kind: bytes) -> None:
    private, public = new_key(accepted)
    assert public.startswith(kind)
    assert load_ssh_private_key(private, password=None) is not None


def test_a_kind_that_cannot_be_made_is_told() -> None:
    with pytest.raises(MachineError, match=r"only sk-ssh-ed25519@openssh\.com"):
        new_key(("sk-ssh-ed25519@openssh.com",))
