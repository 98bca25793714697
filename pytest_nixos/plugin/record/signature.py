"""``--nixos-sign``: a detached signature beside each report and beside a recording's manifest."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar, Protocol, Self

import msgspec

from pytest_nixos.errors import NixosError, SettingsError
from pytest_nixos.local.process import Completed, ProcessTimeout, Runner, SubprocessRunner
from pytest_nixos.local.timing import Deadline

__all__ = ["NAMESPACE", "Signer"]

#: What an SSH signature is for: who checks one names it too, see ssh-keygen(1).
NAMESPACE = "pytest-nixos"
_LIMIT_S = 30.0
_HEAD = 4096
_PUBLIC = re.compile(rb"(?:ssh|ecdsa|sk-ssh|sk-ecdsa)-[\w@.-]+ ")
_MINISIGN = re.compile(rb"untrusted comment: [^\n]*\nRW[A-Za-z0-9+/]")


class Signer(msgspec.Struct, frozen=True):
    """Signs files with the key that was given.

    :param key: how that kind of key signs.
    """

    key: _Key

    @classmethod
    def of(cls, key: Path | None) -> Self | None:
        """Return what signs with the key that was given, ``None`` without one; tried at once.

        :raises SettingsError: if it cannot sign.
        """
        if key is None:
            return None
        try:
            signer = cls(_key(key, SubprocessRunner()))
            signer.key.signature(b"", "nothing")
        except NixosError as err:
            raise SettingsError(f"--nixos-sign {key}: {err.message}", remedy=err.remedy) from err
        return signer

    def beside(self, path: Path) -> Path:
        """Return where the signature of a file lies."""
        return path.with_name(f"{path.name}.{self.key.suffix}")

    def sign(self, path: Path) -> Path:
        """Write the signature of a file beside it, and return where.

        :raises OSError: if the file cannot be read or the signature not be written.
        :raises SettingsError: if it cannot be signed.
        """
        beside = self.beside(path)
        text = self.key.signature(path.read_bytes(), path.name)
        beside.unlink(missing_ok=True)
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "w", encoding="utf-8") as stream:  # noqa: PTH123 - a descriptor
            stream.write(text)
        return beside


class _Key(Protocol):
    """How one kind of key signs; ``suffix`` is how the name of a signature ends."""

    suffix: ClassVar[str]

    def signature(self, data: bytes, name: str) -> str:
        """Return the signature of `data`, which is called `name`, as its file says it.

        :raises SettingsError: if the key cannot sign: not there, or locked with a passphrase.
        :raises ToolMissingError: if its program is not there.
        """


@dataclass(frozen=True)
class _SshKey:
    """``ssh-keygen -Y sign``: a private key, or a public one whose private one is in ssh-agent."""

    suffix: ClassVar[str] = "sig"
    path: Path
    runner: Runner

    def signature(self, data: bytes, name: str) -> str:  # noqa: ARG002 - SSH signs no name
        """Return it in SSH's armour."""
        done = _run(
            self.runner,
            ("ssh-keygen", "-q", "-Y", "sign", "-n", NAMESPACE, "-f", str(self.path)),
            data,
            remedy="look at ssh-agent",
        )
        if done.exit_status != 0 or "BEGIN SSH SIGNATURE" not in done.stdout_text:
            said = done.stderr.decode(errors="replace")
            raise SettingsError(
                f"ssh-keygen cannot sign: {_why(said) or f'exit status {done.exit_status}'}",
                remedy="name a private key without a passphrase, or a public one whose private one is in ssh-agent",
            )
        return done.stdout_text


@dataclass(frozen=True)
class _MinisignKey:
    """``minisign -S``: a secret key without a password."""

    suffix: ClassVar[str] = "minisig"
    path: Path
    runner: Runner

    def signature(self, data: bytes, name: str) -> str:
        """Return it with the trusted comment that minisign writes: the time and `name`."""
        with TemporaryDirectory(prefix="pytest-nixos-sign-") as directory:
            # minisign reads and writes files only, and signs the name of the one that it reads.
            file, signature = Path(directory) / name, Path(directory) / f"{name}.{self.suffix}"
            file.write_bytes(data)
            done = _run(
                self.runner,
                ("minisign", "-S", "-s", str(self.path), "-m", str(file), "-x", str(signature)),
                b"",
                remedy="give a key without a password",
            )
            if done.exit_status != 0 or not signature.is_file():
                raise SettingsError(
                    f"minisign cannot sign: {_minisign_why(done)}",
                    remedy="name a secret key without a password: minisign -G -W -s KEY -p KEY.pub",
                )
            return signature.read_text(encoding="utf-8")


def _key(path: Path, runner: Runner) -> _Key:
    """Return how the key in a file signs.

    :raises SettingsError: if there is no file, or no key in it: of that ssh-keygen says that it
        finds no public key.
    """
    remedy = (
        "name the file of an SSH key (ssh-keygen -t ed25519) or of a minisign key (minisign -G -W)"
    )
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise SettingsError("is no plain file", remedy=remedy)
        with path.open("rb") as stream:
            head = stream.read(_HEAD)
    except OSError as err:
        raise SettingsError(f"cannot be read: {err.strerror}", remedy=remedy) from err
    if _MINISIGN.match(head):
        return _MinisignKey(path, runner)
    if b"PRIVATE KEY-----" in head or _PUBLIC.match(head):
        return _SshKey(path, runner)
    raise SettingsError("is no SSH key and no minisign key", remedy=remedy)


def _run(runner: Runner, argv: tuple[str, ...], stdin: bytes, *, remedy: str) -> Completed:
    try:
        return runner.run(
            argv,
            deadline=Deadline.after(_LIMIT_S),
            stdin=stdin,
            # Nobody is there to type a passphrase.
            env={"SSH_ASKPASS_REQUIRE": "force", "SSH_ASKPASS": "/bin/false"},
        )
    except ProcessTimeout as err:
        raise SettingsError(f"{argv[0]} still signs after {_LIMIT_S:g} s", remedy=remedy) from err


def _why(said: str) -> str:
    """Return what of ssh-keygen's words says most: that it finds no key comes last, and why before."""
    lines = [line.strip() for line in said.splitlines() if line.strip(" @")]
    reasons = [line for line in lines if "too open" in line or "load key" in line.lower()]
    return (reasons or lines or [""])[-1]


def _minisign_why(done: Completed) -> str:
    said = (done.stdout + done.stderr).decode(errors="replace")
    if "assword" in said:
        return "the key has a password, and nobody is there to type it"
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1] if lines else f"exit status {done.exit_status}"
