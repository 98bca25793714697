"""The kind about HTTP answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.observe.base import Probe, ProbeOutput
from pytest_nixos.observe.network.http import HttpAnswer, HttpRequest, http
from pytest_nixos.observe.text import read_json
from pytest_nixos.standards.control.declared_value import select
from pytest_nixos.standards.control.placeholders import filled, opened, placeholder_options
from pytest_nixos.standards.control.seen import Seen, Sight, Unseen
from pytest_nixos.standards.kinds.kind import NEEDED, TEXTS, Kind, Parameter, Parameters

__all__ = ["KINDS"]

# What a server says that is loading, RFC 9110, 15.6.4.
_UNAVAILABLE = 503


def _http_probe(wanted: Sequence[Parameters], host: HostConfig) -> Probe[Any]:
    urls = [filled(str(p["url"]), host) for p in wanted]
    known = list(dict.fromkeys(str(url.value) for url in urls if isinstance(url, Seen)))
    probe = http([HttpRequest(url=url) for url in known], name="catalogue-http")

    def parse(output: ProbeOutput) -> Mapping[str, HttpAnswer]:
        return dict(zip(known, probe.parse(output), strict=False)) if known else {}

    return Probe(name=probe.name, script=probe.script if known else ":", parse=parse)


def _http(answers: Mapping[str, HttpAnswer], parameters: Parameters, host: HostConfig) -> Sight:
    url = filled(str(parameters["url"]), host)
    if isinstance(url, Unseen):
        return url
    answer = answers.get(str(url.value))
    if answer is None or answer.status is None:
        why = "it was not asked" if answer is None else answer.failure
        return Unseen(f"{url.value} gave no answer: {why}")
    match parameters.get("field", "status"):
        case "status":
            return Seen(answer.status)
        case "headers":
            return Seen(select(dict(answer.headers), tuple(parameters.get("select", ()))))
        case "body":
            return Seen(answer.text)
        case _:
            return _http_json(answer, parameters, str(url.value))


def _http_json(answer: HttpAnswer, parameters: Parameters, url: str) -> Sight:
    if not answer.succeeded:
        return Unseen(f"{url} answered with status {answer.status}")
    try:
        document = read_json(answer.body)
    except ValueError:
        return Unseen(f"{url} answered with something that is not JSON")
    return Seen(select(document, tuple(parameters.get("select", ()))))


def _unready(answers: Mapping[str, HttpAnswer], parameters: Parameters, host: HostConfig) -> bool:
    url = filled(str(parameters["url"]), host)
    answer = answers.get(str(url.value)) if isinstance(url, Seen) else None
    if answer is None or not opened(parameters.get("opened-by", ()), host):
        return False
    if answer.status is None or answer.status == _UNAVAILABLE:
        return True
    sight = _http(answers, parameters, host)
    return bool(parameters.get("comes-later")) and isinstance(sight, Seen) and not sight.value


KINDS = (
    Kind(
        name="http",
        reads="HTTP answers, asked from inside the machine",
        probe=_http_probe,
        find=_http,
        parameters={
            "url": NEEDED,
            "field": Parameter(choices=("status", "json", "body", "headers")),
            "select": TEXTS,
            "comes-later": Parameter(type="flag"),
            "opened-by": TEXTS,
        },
        unready=_unready,
        options=lambda p: (*placeholder_options(str(p.get("url", ""))), *p.get("opened-by", ())),
    ),
)
