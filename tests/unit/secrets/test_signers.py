"""The key that somebody signs with is named by its fingerprint, which is public."""

from __future__ import annotations

import pytest

from pytest_nixos.secrets.pairs import by_name

FINGERPRINT = "5D1C238558CF0FC39400BA2E" + "E2256EAE7390AF2C"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('git.signing = {\n  signByDefault = true;\n  key = "@";\n};\n', 0),
        ('signing = {\n  key = "@!";\n};\n', 0),
        ('git.signing.key = "@";\n', 0),
        ('api = {\n  key = "@";\n};\n', 1),
        ('signing = { };\napi = {\n  key = "@";\n};\n', 1),
    ],
)
def test_a_fingerprint_below_signing_is_no_secret(text: str, found: int) -> None:
    text = text.replace("@", FINGERPRINT)
    assert len(list(by_name(text, name="git.nix"))) == found
