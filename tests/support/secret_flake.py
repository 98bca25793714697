"""A flake of hosts with secrets, written for one test: their encrypted files are made here, for a
key that nobody keeps, as the files of a host's owner are.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pyrage

from pytest_nixos.test_secrets.sops_file import Tree, written

__all__ = ["AGE", "LAYOUTS", "write_secret_flake"]

AGE = shutil.which("age")
#: Hosts of which all is right once they have test secrets.
LAYOUTS = (
    "sops-yaml",
    "sops-dotenv",
    "sops-json-binary",
    "sops-templates",
    "agenix",
    "agenix-moved",
)
_FLAKE = Path(__file__).parents[2] / "example-flake" / "secret-hosts"
_SOPS: dict[str, tuple[str, Tree]] = {
    "all.yaml": ("yaml", {"api-token": "real " * 4, "nested": {"deep": "real"}, "alice-password": "$6$real"}),
    "app.env": ("dotenv", {"DB_PASSWORD": "real", "API_KEY": "real"}),
    "all.json": ("json", {"client": "real-client"}),
    "blob.bin": ("binary", {"data": "real\nblob"}),
    "app.ini": ("ini", {"db": {"user": "real"}}),
}  # fmt: skip


def write_secret_flake(directory: Path) -> Path:
    """Copy the flake and encrypt its files; return where it is."""
    flake = directory / "secret-hosts"
    shutil.copytree(_FLAKE, flake)
    assert AGE is not None
    shutil.copy(AGE, flake / "age")
    nobody = pyrage.x25519.Identity.generate().to_public()
    secrets = flake / "secrets"
    secrets.mkdir()
    for name, (form, tree) in _SOPS.items():
        (secrets / name).write_text(written(tree, form, nobody))
    for name in ("token.age", "alice.age"):
        (secrets / name).write_bytes(pyrage.encrypt(b"real", [nobody]))
    return flake
