"""Certificates that services name, and the names of sites."""

from __future__ import annotations

import datetime as dt

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from checks.tls.certificates import (
    Certificate,
    Site,
    named_certificates,
    read_certificates,
    sites_of,
    wrong_dates,
    wrong_names,
)

NOW = dt.datetime(2026, 11, 30, tzinfo=dt.UTC)
KEY = ec.generate_private_key(ec.SECP256R1())


def pem(name: str, *names: str, issuer: str = "") -> str:
    own, by = (
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
        for text in (name, issuer or name)
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(own)
        .issuer_name(by)
        .public_key(KEY.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW + dt.timedelta(days=9))
    )
    if names:
        alternatives = x509.SubjectAlternativeName([x509.DNSName(one) for one in names])
        builder = builder.add_extension(alternatives, critical=False)
    return builder.sign(KEY, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def read(text: str) -> Certificate | None:
    return read_certificates(f"/c.pem\0{text}\0".encode()).get("/c.pem")


def test_what_a_file_holds() -> None:
    found = read(pem("a.example", "a.example", "*.b.example") + pem("authority"))
    assert found == Certificate(
        path="/c.pem",
        names=("a.example", "*.b.example"),
        begins=NOW,
        ends=NOW + dt.timedelta(days=9),
    )
    only_subject = read(pem("old.example"))
    assert only_subject is not None
    assert only_subject.names == ("old.example",)


@pytest.mark.parametrize(
    "text",
    ["", "no certificate", pem("x", issuer="pytest-nixos test CA"), "".join(map(pem, "abcde"))],
    ids=["empty", "none", "made by this run", "list of authorities"],
)
def test_what_is_left_out(text: str) -> None:
    assert read(text) is None


def test_dates() -> None:
    found = read(pem("a"))
    assert found is not None
    assert wrong_dates(found, NOW + dt.timedelta(days=1)) == ""
    assert wrong_dates(found, NOW + dt.timedelta(days=10)) == "ended on 2026-12-09"
    assert wrong_dates(found, NOW - dt.timedelta(days=1)) == "begins on 2026-11-30 only"


def test_sites_with_a_certificate_of_their_own() -> None:
    own = {"sslCertificate": "/srv/c.pem", "forceSSL": True}
    hosts = {
        "a": {**own, "serverName": "a.example", "serverAliases": [".b.example", "~^www", "_"]},
        "c.example": own,
        "plain": {"sslCertificate": "/srv/c.pem", "forceSSL": False},
        "acme": {**own, "enableACME": True},
        "shared": {**own, "useACMEHost": "acme"},
        "default": {**own, "serverName": "localhost"},
        "10.0.0.1": own,
    }
    found = {site.name: site.names for site in sites_of(hosts)}
    assert found == {
        "a": ("a.example", "b.example"),
        "c.example": ("c.example",),
        "default": (),
        "10.0.0.1": (),
    }
    assert list(sites_of(None)) == []


def test_names_that_a_certificate_is_not_for() -> None:
    site = Site(name="a", names=("A.example", "x.b.example", "b.example"), certificate="/c.pem")
    found = read(pem("z", "a.example", "*.b.example"))
    assert found is not None
    assert wrong_names(site, found) == ["b.example"]


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("tls_cert = /srv/tls/cert.pem;", ["/srv/tls/cert.pem"]),
        ("--cert=/etc/a/b.crt --key /etc/a/b.key", ["/etc/a/b.crt"]),
        ("/var/lib/acme/a.example/cert.pem", []),
        ("https://example.org/ca.pem ${DIR}/a/c.pem /etc/ssl/*.pem /a/c.pem.bak", []),
    ],
)
def test_files_that_a_text_names(text: str, paths: list[str]) -> None:
    assert list(named_certificates(text)) == paths
