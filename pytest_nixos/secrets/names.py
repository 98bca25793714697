"""Names beside which a secret stands: ``smtp.password``, ``AWS_SECRET_ACCESS_KEY``,
``rpcpassword``.
"""

from __future__ import annotations

import enum
import re

__all__ = ["NameClass", "may_name", "name_class", "names_key_of_signer"]


class NameClass(enum.Enum):
    """How much a name says about the value beside it."""

    PASSWORD = "password"  # noqa: S105 - the name of a class
    HASH = "password hash"
    TOKEN = "secret"  # noqa: S105
    KEY = "key"


#: A line without one of these needs no closer look.
_HINTS = (
    *("pass", "pw", "secret", "token", "psk", "key", "credential", "auth", "pin", "webhook"),
    *("seed", "salt", "pepper", "bearer", "identified", "encrypt"),
)

#: gpg(1): a key is named by its last 8 or 16 hex digits, or by all 40, in capitals.
_KEY_ID = re.compile(r"(?:0x)?(?:[0-9A-F]{8}|[0-9A-F]{16}|[0-9A-F]{40})!?")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_WORD = re.compile(r"[a-z0-9]+")

_PASSWORDS = ("password", "passwd", "passphrase", "passwort", "passcode", "pass")
#: Words that end so and mean something else.
_NO_PASSWORDS = (
    *("bypass", "compass", "trespass", "surpass", "overpass", "askpass", "multipass", "minipass"),
    *("twopass", "onepass", "singlepass"),
)
_PASSWORD_WORDS = frozenset(
    {"pass", "pwd", "pw", "psk", "pin", "bindpw", "rootpw", "requirepass", "masterauth", "pgpass",
     "authtok", "sshpass", "mypwd", "rootpass", "adminpass", "smtppass", "userpw", "keypass",
     "storepass", "becomepass"}
)  # fmt: skip
_TOKENS = ("secret", "token", "apikey", "secretkey", "privatekey", "presharedkey", "authkey")
_TOKEN_WORDS = frozenset({"credential", "credentials", "bearer", "privkey", "sharedkey"})
#: The last two or three words, joined.
_TOKEN_ENDS = re.compile(
    r"(?:api|secret|secretaccess|private|preshared|shared|sharedaccess|auth|signing|encryption|"
    r"master|"
    r"account|storage|session|hmac|cookie|jwt|aes|crypt|enc|priv|access|app|admin|consumersecret|"
    r"license|integration|routing|service|write|unseal|root|decryption|recovery)keys?$|"
    r"secretkeybase$|keydata$|seckey$|webhookurl$|sharedsecret$"
)
_HASHES = re.compile(
    r"(?:pass(?:word|wd|phrase)?|pwd|pw)(?:hash|hashed|sha\d*|md5|digest|crypt|bcrypt|scrypt|"
    r"verifier)$|"
    r"hashed(?:password|controlpassword)$|encryptedpassword$"
)
#: Words that turn a key into one that is no secret.
_OPEN = frozenset(
    {
        "public", "publickey", "pub", "pubkey", "cache", "primary", "foreign", "partition", "sort", "trusted",
        "verify", "verifying", "fingerprint", "authorized", "known", "recipient", "peer", "gpg",
        "apt", "index", "map", "group", "lookup", "idempotency", "object", "site", "translation",
        "csrf", "publishable", "minisign", "hot", "registry", "color", "max", "min", "tokens",
        "passed", "bypass",
    }
)  # fmt: skip
_OF_CREDENTIALS = frozenset({"import", "load", "set", "condition", "assert"})


def may_name(text: str) -> bool:
    """Whether a text holds a name of a secret at all."""
    low = text.lower()
    return any(hint in low for hint in _HINTS)


def words_of(name: str) -> list[str]:
    """Return the words of a name in lower case: ``smtp.userPassword`` is smtp, user, password."""
    return _WORD.findall(_CAMEL.sub("_", name).lower())


def names_key_of_signer(name: str, value: str) -> bool:
    """Whether a pair names the public key that somebody signs with, by the id or fingerprint that
    gpg prints: ``user.signingKey = "394546A47BB40E12"``.
    """
    # The password store of pass(1) names by it for whom it encrypts.
    return words_of(name)[-2:] in (["signing", "key"], ["store", "key"]) and bool(
        _KEY_ID.fullmatch(value)
    )


def name_class(name: str) -> NameClass | None:
    """Tell what stands beside `name`, judged by its last words; ``None`` if no secret is to be
    expected.
    """
    # sops' own ending for a value that it leaves readable.
    words = words_of(name.removesuffix("_unencrypted"))
    # Charts of Helm name a secret of the cluster by an existing one.
    if not words or words[0] == "existing" or _OPEN.intersection(words):
        return None
    # Nix writes a directive behind the name of its section, serviceConfig.LoadCredential.
    own = words_of(name.rpartition(".")[2])
    if own[:1] and own[0] in _OF_CREDENTIALS and "credential" in own[1:2]:
        return None  # systemd's own directives name credentials and files
    last, two, three = words[-1], "".join(words[-2:]), "".join(words[-3:])
    if _HASHES.search(two):
        return NameClass.HASH
    if last == "signingkey":
        return None  # git's name for a public key
    if last in _PASSWORD_WORDS or (last.endswith(_PASSWORDS) and not last.endswith(_NO_PASSWORDS)):
        return NameClass.PASSWORD
    if last in _TOKEN_WORDS or last.endswith(_TOKENS):
        return NameClass.TOKEN
    if _TOKEN_ENDS.search(two) or _TOKEN_ENDS.search(three):
        return NameClass.TOKEN
    if last in {"seed", "auth", "encrypt"} or last.endswith(("key", "salt", "pepper")):
        return NameClass.KEY
    return None
