"""Certificates that a host's services name, and the names of the sites that are served with them."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from cryptography import x509

__all__ = [
    "LOOK",
    "Certificate",
    "Site",
    "named_certificates",
    "read_certificates",
    "sites_of",
    "wrong_dates",
    "wrong_names",
]

Json = Any
#: Bash that prints, of each path that it reads up to a NUL and that is a file, path and certificates, and
#: nothing else that the file has: a key may stand beside them.
LOOK = r"""
while IFS= read -r -d '' path; do
  [ -f "$path" ] || continue
  printf '%s\0' "$path"
  sed -n '/^-----BEGIN CERTIFICATE-----/,/^-----END CERTIFICATE-----/p' -- "$path" | head -c 65536
  printf '\0'
done
"""
_FILE = re.compile(
    r"(?<![\w.:/$}~*?%-])/(?:[\w.+@-]+/)+[\w.+@-]+\.(?:pem|crt|cer|cert)(?![\w.*?%{$/-])"
)
# What is there is not that of the host at home: what ACME orders, and what this run made.
_ELSEWHERE = "/var/lib/acme/"
_MADE_HERE = "pytest-nixos test CA"
# A longer list is one of authorities, some of which may have ended.
_MOST_IN_CHAIN = 4
_TLS = ("forceSSL", "onlySSL", "addSSL", "enableSSL")
_ACME = ("enableACME", "useACMEHost")
# A name that a client may ask for; others stand for whatever no site is called.
_NAME = re.compile(r"(?:\*\.)?(?:[a-z0-9_-]+\.)+[a-z0-9-]*[a-z][a-z0-9-]*", re.IGNORECASE)


class Certificate(msgspec.Struct, frozen=True, kw_only=True):
    """The certificate that a file begins with.

    :param names: DNS names that it is for.
    :param begins: as UTC, as `ends`.
    """

    path: str
    names: tuple[str, ...]
    begins: dt.datetime
    ends: dt.datetime

    def is_for(self, name: str) -> bool:
        """Whether a client that asks for a name takes it (RFC 6125, section 6.4)."""
        own = {one.lower() for one in self.names}
        _, _, above = name.lower().partition(".")
        return name.lower() in own or f"*.{above}" in own


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """A virtual host of nginx that has a certificate of its own.

    :param name: of the attribute.
    :param names: that it answers to and a client can ask for.
    :param certificate: path of its file.
    """

    name: str
    names: tuple[str, ...]
    certificate: str


def sites_of(virtual_hosts: Json) -> Iterator[Site]:
    """Yield the sites of ``services.nginx.virtualHosts`` whose certificate is a file of the host's own."""
    for attribute, site in (virtual_hosts if isinstance(virtual_hosts, Mapping) else {}).items():
        if not isinstance(site, Mapping) or any(site.get(word) for word in _ACME):
            continue
        path = site.get("sslCertificate")
        if path and any(site.get(word) for word in _TLS):
            named = (site.get("serverName") or attribute, *(site.get("serverAliases") or ()))
            names = tuple(str(name).lstrip(".") for name in named)
            yield Site(
                name=attribute,
                names=tuple(name for name in names if _NAME.fullmatch(name)),
                certificate=str(path),
            )


def named_certificates(text: str) -> Iterator[str]:
    """Yield the files of certificates that a text names."""
    for path in _FILE.findall(text):
        if not path.startswith(_ELSEWHERE):
            yield path


def read_certificates(printed: bytes) -> Mapping[str, Certificate]:
    """Read what :data:`LOOK` prints. Files without a certificate, lists of authorities and what this run
    made are left out.
    """
    fields = printed.decode(errors="replace").split("\0")
    found = {}
    for path, text in zip(fields[::2], fields[1::2], strict=False):
        if (certificate := _first(path, text)) is not None:
            found[path] = certificate
    return found


def wrong_dates(certificate: Certificate, now: dt.datetime) -> str:
    """Return why a certificate is not valid at a time, ``""`` for one that is."""
    if certificate.ends <= now:
        return f"ended on {certificate.ends:%Y-%m-%d}"
    if certificate.begins > now:
        return f"begins on {certificate.begins:%Y-%m-%d} only"
    return ""


def wrong_names(site: Site, certificate: Certificate) -> Sequence[str]:
    """Return the names of a site that its certificate is not for."""
    return [name for name in site.names if not certificate.is_for(name)]


def _first(path: str, text: str) -> Certificate | None:
    from cryptography import x509

    try:
        chain = x509.load_pem_x509_certificates(text.encode())
    except ValueError:
        return None
    if len(chain) > _MOST_IN_CHAIN or _common_name(chain[0].issuer) == _MADE_HERE:
        return None
    return Certificate(
        path=path,
        names=tuple(_names(chain[0])),
        begins=chain[0].not_valid_before_utc,
        ends=chain[0].not_valid_after_utc,
    )


def _names(certificate: x509.Certificate) -> Sequence[str]:
    from cryptography import x509

    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return [_common_name(certificate.subject)]  # as OpenSSL does
    return extension.value.get_values_for_type(x509.DNSName)


def _common_name(name: x509.Name) -> str:
    from cryptography.x509.oid import NameOID

    return next((str(one.value) for one in name.get_attributes_for_oid(NameOID.COMMON_NAME)), "")
