"""What PAM asks for beside a password, and a run has none of."""

from __future__ import annotations

from pytest_nixos import Machine

__all__ = ["more_than_a_password"]

# Modules that ask for a device, a code, a directory or an agent.
_ASK = (
    r"grep -ohE 'pam_(u2f|yubico|google_authenticator|oath|fprintd|pkcs11|p11|duo|radius|ldap|sss|krb5|rssh|ssh_agent_auth)\b'"
    " /etc/pam.d/{service} | sort -u"
)


def more_than_a_password(machine: Machine, service: str) -> str:
    """Say which modules of a PAM service ask for more than a password, ``""`` for none.

    :param service: such as ``login``.
    """
    modules = machine.run(_ASK.format(service=service)).stdout_text.split()
    return f"{service} asks for more than a password ({', '.join(modules)})" if modules else ""
