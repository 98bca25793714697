"""Certificates of files are such that clients take them."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from pytest_nixos import Evidence, HostConfig, Machine, not_applicable, observe

from .certificates import (
    LOOK,
    Certificate,
    named_certificates,
    read_certificates,
    sites_of,
    wrong_dates,
    wrong_names,
)

_VIRTUAL_HOSTS = "services.nginx.virtualHosts"


@pytest.mark.nixos_control("TLS-008")
def test_certificates_are_in_date_and_name_their_sites(
    nixos_host_config: HostConfig, nixos_machine: Machine, nixos_evidence: Evidence
) -> None:
    declared = nixos_host_config.option(_VIRTUAL_HOSTS)
    sites = list(sites_of(declared.value))
    paths = sorted({*(site.certificate for site in sites), *_named(nixos_host_config)})
    if not paths:
        not_applicable("no service names a file of a certificate")
    nixos_evidence.expect("each certificate is valid today, and for the names of its site")
    asked = "".join(f"{path}\0" for path in paths)
    done = nixos_machine.run(LOOK, stdin=asked.encode())
    assert done.exit_status == 0, f"the guest did not tell its certificates: {done.stderr_text}"
    certificates = read_certificates(done.stdout)
    if not certificates:
        not_applicable(f"unknown: no certificate of the host's own is in {', '.join(paths)}")
    now = dt.datetime.now(dt.UTC)
    ended = {path: why for path, one in certificates.items() if (why := wrong_dates(one, now))}
    told = [f"{path} {why}" for path, why in ended.items()]
    mended = [
        f"# {path} {why}: put another one there (openssl x509 -noout -dates -in {path} shows its time), and have it renewed."
        for path, why in ended.items()
    ]
    for site in sites:
        own = certificates.get(site.certificate)
        if own is not None and (missing := wrong_names(site, own)):
            names = ", ".join(missing)
            told.append(f"{site.certificate} is for {_of(own)}, and the site answers to {names}")
            mended.append(
                f'# {_VIRTUAL_HOSTS}."{site.name}": give it a certificate for {names} in {site.certificate}, or correct its serverName.'
            )
    nixos_evidence.observe(told)
    nixos_evidence.remedy = "\n".join(dict.fromkeys(mended))
    assert not told, "; ".join(told)
    if declared.state == "unreadable":
        not_applicable("unknown: the names of nginx' sites cannot be evaluated")


def _named(host: HostConfig) -> set[str]:
    """Return the files of certificates that the host's services name."""
    toplevel = Path(host.toplevel)
    texts = (
        text
        for unit in observe.declared_units(host, ".service").values()
        for text in (
            *(value for _, _, value in unit.directives()),
            *(file.text for file in observe.read_files(unit, toplevel)),
        )
    )
    return {path for text in texts for path in named_certificates(text)}


def _of(certificate: Certificate) -> str:
    return ", ".join(certificate.names) or "no name"
