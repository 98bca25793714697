"""Lines of authorized_keys, and what sshd would not take of them."""

from __future__ import annotations

import base64
import binascii
import re

__all__ = ["unusable"]

# ssh-keygen(1) -t, and what OpenSSH calls them in a key; sshd(8), AUTHORIZED_KEYS FILE FORMAT.
_TYPES = (
    r"(?:ssh-(?:ed25519|rsa|dss)|ecdsa-sha2-nistp(?:256|384|521)"
    r"|sk-(?:ssh-ed25519|ecdsa-sha2-nistp256)@openssh\.com)(?:-cert-v\d\d@openssh\.com)?"
)
_KEY = re.compile(rf"(?:^|\s)(?P<type>{_TYPES})\s+(?P<text>\S+)")
# A public key of ed25519 (RFC 8709).
_ED25519_BYTES = 32


def unusable(line: str) -> str:
    """Return why sshd takes no key from a line, ``""`` where it takes one or the line has none."""
    text = line.strip()
    if not text or text.startswith("#"):
        return ""
    # What stands in quotes is an option's.
    found = _KEY.search(re.sub(r'"(?:\\.|[^"\\])*"', '""', text))
    if found is None:
        return "names no kind of key that sshd knows"
    try:
        blob = base64.b64decode(found["text"], validate=True)
    except binascii.Error:
        return "its key is no base64, as when letters are missing"
    fields = _fields(blob)
    if fields is None:
        return "its key is cut off"
    if fields[0] != found["type"].encode():
        return f"is called {found['type']} and holds another kind of key"
    if found["type"] == "ssh-ed25519" and [len(f) for f in fields[1:]] != [_ED25519_BYTES]:
        return "its key has the wrong length"
    return ""


def _fields(blob: bytes) -> list[bytes] | None:
    """Part a key into its fields, each behind its length (RFC 4253, 6.6); ``None`` for no key."""
    if len(blob) == 0:
        return None
    found: list[bytes] = []
    at = 0
    while at < len(blob):
        size = int.from_bytes(blob[at : at + 4], "big")
        field = blob[at + 4 : at + 4 + size]
        if len(blob) - at < 4 or len(field) != size:
            # A certificate's serial and times are numbers without a length.
            return found if found and b"-cert-" in found[0] else None
        found.append(field)
        at += 4 + size
    return found
