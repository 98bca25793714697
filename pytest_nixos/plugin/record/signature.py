"""``--nixos-sign``: a detached signature beside each report and beside a recording's manifest."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pytest_nixos.errors import NixosError, SettingsError
from pytest_nixos.local.process import ProcessTimeout, Runner, SubprocessRunner
from pytest_nixos.local.timing import Deadline

__all__ = ["NAMESPACE", "Signer"]

#: What a signature is for: who checks one names it too, see ssh-keygen(1).
NAMESPACE = "pytest-nixos"
_LIMIT_S = 30.0
_HEAD = 4096
_PUBLIC = re.compile(rb"(?:ssh|ecdsa|sk-ssh|sk-ecdsa)-[\w@.-]+ ")


@dataclass(frozen=True, slots=True)
class Signer:
    """Signs with ``ssh-keygen -Y sign``: a private key, or a public one whose private one is in ssh-agent.

    :param key: file of the key.
    """

    key: Path
    runner: Runner

    @classmethod
    def of(cls, key: Path | None) -> Self | None:
        """Return what signs with the key that was given, ``None`` without one; tried at once.

        :raises SettingsError: if it cannot sign.
        """
        if key is None:
            return None
        signer = cls(key, SubprocessRunner())
        try:
            signer._refuse_no_key()
            signer.signature(b"")
        except NixosError as err:
            raise SettingsError(f"--nixos-sign {key}: {err.message}", remedy=err.remedy) from err
        return signer

    def sign(self, path: Path) -> Path:
        """Write ``PATH.sig`` beside a file, and return it.

        :raises OSError: if the file cannot be read or the signature not be written.
        :raises SettingsError: if it cannot be signed.
        """
        beside = path.with_name(f"{path.name}.sig")
        text = self.signature(path.read_bytes())
        beside.unlink(missing_ok=True)
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "w", encoding="ascii") as stream:  # noqa: PTH123 - a descriptor
            stream.write(text)
        return beside

    def signature(self, data: bytes) -> str:
        """Return the signature of `data`, in SSH's armour.

        :raises SettingsError: if the key cannot sign: not there, or locked with a passphrase.
        :raises ToolMissingError: if there is no ssh-keygen.
        """
        argv = ("ssh-keygen", "-q", "-Y", "sign", "-n", NAMESPACE, "-f", str(self.key))
        try:
            done = self.runner.run(
                argv,
                deadline=Deadline.after(_LIMIT_S),
                stdin=data,
                # Nobody is there to type a passphrase.
                env={"SSH_ASKPASS_REQUIRE": "force", "SSH_ASKPASS": "/bin/false"},
            )
        except ProcessTimeout as err:
            raise SettingsError(
                f"ssh-keygen still signs after {_LIMIT_S:g} s", remedy="look at ssh-agent"
            ) from err
        if done.exit_status != 0 or "BEGIN SSH SIGNATURE" not in done.stdout_text:
            said = done.stderr.decode(errors="replace")
            raise SettingsError(
                f"ssh-keygen cannot sign: {_why(said) or f'exit status {done.exit_status}'}",
                remedy="name a private key without a passphrase, or a public one whose private one is in ssh-agent",
            )
        return done.stdout_text

    def _refuse_no_key(self) -> None:
        """Refuse what is no file, or no key: of that ssh-keygen says that it finds no public key.

        :raises SettingsError: then.
        """
        why = ""
        try:
            if not stat.S_ISREG(self.key.stat().st_mode):
                why = "is no plain file"
            else:
                with self.key.open("rb") as stream:
                    head = stream.read(_HEAD)
                if b"PRIVATE KEY-----" not in head and not _PUBLIC.match(head):
                    why = "is no SSH key"
        except OSError as err:
            why = f"cannot be read: {err.strerror}"
        if why:
            raise SettingsError(why, remedy="name the file of an SSH key: ssh-keygen -t ed25519")


def _why(said: str) -> str:
    """Return what of ssh-keygen's words says most: that it finds no key comes last, and why before."""
    lines = [line.strip() for line in said.splitlines() if line.strip(" @")]
    reasons = [line for line in lines if "too open" in line or "load key" in line.lower()]
    return (reasons or lines or [""])[-1]
