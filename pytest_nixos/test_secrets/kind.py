"""Kinds of secrets: what has to be in the file."""

from __future__ import annotations

import enum

__all__ = ["Kind"]


class Kind(enum.Enum):
    """What a secret is."""

    PASSWORD = "password"  # noqa: S105 - names of kinds
    PASSWORD_HASH = "password-hash"  # noqa: S105
    HEX = "hex"
    BASE64 = "base64"
    WIREGUARD_KEY = "wireguard-key"
    WIREGUARD_PUBLIC_KEY = "wireguard-public-key"
    WIREGUARD_PRESHARED_KEY = "wireguard-preshared-key"
    SSH_KEY = "ssh-key"
    SSH_RSA_KEY = "ssh-rsa-key"
    SSH_PUBLIC_KEY = "ssh-public-key"
    CERTIFICATE = "certificate"
    CERTIFICATE_KEY = "certificate-key"
    CA_CERTIFICATE = "ca-certificate"
    ENVIRONMENT = "environment"
    JSON = "json"
