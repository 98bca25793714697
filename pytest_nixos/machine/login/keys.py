"""Keys of ssh that are made for one login."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pytest_nixos.errors import MachineError

__all__ = ["new_key"]

_BITS = 3072


def new_key(accepted: Sequence[str]) -> tuple[bytes, bytes]:
    """Make a key of the first kind that sshd accepts.

    :param accepted: signature algorithms, as ``PubkeyAcceptedAlgorithms`` of sshd_config(5) names
        them.
    :return: the private key, and the line of its public half.
    :raises MachineError: if none of them can be made here (hardware tokens, certificates).
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    makers: dict[str, Callable[[], Any]] = {
        "ssh-ed25519": ed25519.Ed25519PrivateKey.generate,
        "ecdsa-sha2-nistp256": lambda: ec.generate_private_key(ec.SECP256R1()),
        "ecdsa-sha2-nistp384": lambda: ec.generate_private_key(ec.SECP384R1()),
        "ecdsa-sha2-nistp521": lambda: ec.generate_private_key(ec.SECP521R1()),
        "rsa-sha2-512": lambda: rsa.generate_private_key(public_exponent=65537, key_size=_BITS),
        "rsa-sha2-256": lambda: rsa.generate_private_key(public_exponent=65537, key_size=_BITS),
    }
    kind = next((kind for kind in makers if kind in accepted), None)
    if kind is None:
        raise MachineError(
            f"sshd accepts no key that can be made for a test, only {', '.join(accepted)}",
            remedy="such a login takes hardware or a certificate; try it by hand",
        )
    key = makers[kind]()
    private: bytes = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )
    public: bytes = key.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    return private, public + b" pytest-nixos, for this run only\n"
