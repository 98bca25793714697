"""systemd-resolved: what it does with the answers of each link's name servers.

A link's own setting (systemd.network(5), NetworkManager, resolvectl) beats that of resolved.conf(5).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec

from pytest_nixos.observe.base import Probe, ProbeOutput
from pytest_nixos.observe.text import lines

__all__ = ["LinkResolver", "Resolver", "resolver"]

# resolvectl would start the service by its bus name: who does not run it is not asked.
_READ = """
systemctl --quiet is-active systemd-resolved.service || exit 3
for what in dns dnssec dnsovertls; do title $what; timeout 20 resolvectl --no-pager $what || exit 4; done
title complete
"""
_LINE = re.compile(r"(Global|Link \d+ \(([^)]+)\)):?\s*(.*)")
_WORDS = {"yes": "true", "no": "false"}


class LinkResolver(msgspec.Struct, frozen=True, kw_only=True):
    """What is in force for one link, or for all that have none of their own.

    :param dnssec: ``true``, ``false`` or ``allow-downgrade``, in resolved.conf's words.
    :param dns_over_tls: ``true``, ``false`` or ``opportunistic``.
    """

    servers: tuple[str, ...]
    dnssec: str
    dns_over_tls: str


class Resolver(msgspec.Struct, frozen=True, kw_only=True):
    """systemd-resolved as it runs.

    :param links: those that have a name server of their own, by name.
    """

    everywhere: LinkResolver
    links: Mapping[str, LinkResolver]


def resolver(*, name: str = "resolver") -> Probe[Resolver | str | None]:
    """Ask what systemd-resolved does.

    :return: probe of it; a text that says why there is none to ask; ``None`` where it gave no
        answer.
    """
    return Probe(name=name, script=_READ, parse=_parse)


def _parse(output: ProbeOutput) -> Resolver | str | None:
    if output.exit_status == 3:
        return "systemd-resolved does not run"
    sections = output.sections
    if "complete" not in sections:
        return None
    parts = {what: _by_link(sections.get(what, ())) for what in ("dns", "dnssec", "dnsovertls")}
    if "" not in parts["dnssec"]:
        return None
    found = {
        link: LinkResolver(
            servers=tuple(parts["dns"].get(link, "").split()),
            dnssec=_word(parts["dnssec"].get(link, parts["dnssec"][""])),
            dns_over_tls=_word(parts["dnsovertls"].get(link, parts["dnsovertls"].get("", ""))),
        )
        for link in parts["dnssec"]
    }
    return Resolver(
        everywhere=found[""],
        links={link: state for link, state in found.items() if link and state.servers},
    )


def _by_link(text: Sequence[str]) -> Mapping[str, str]:
    """Return what each link is told to be, that of all under ``""``; servers may go on in lines of
    their own.
    """
    found: dict[str, str] = {}
    last = ""
    for line in lines("\n".join(text)):
        if (match := _LINE.fullmatch(line)) is not None:
            last = match[2] or ""
            found[last] = match[3]
        elif last in found:
            found[last] += f" {line}"
    return found


def _word(text: str) -> str:
    word = (text.split() or [""])[0]
    return _WORDS.get(word, word)
