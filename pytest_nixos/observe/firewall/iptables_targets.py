"""What the targets of iptables do beside ending a rule with a verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pytest_nixos.observe.firewall.model import (
    Action,
    Assign,
    Chance,
    Nat,
    Notrack,
    Reason,
    Step,
    Verdict,
)
from pytest_nixos.observe.firewall.spans import Spans, joined, parse_network, whole

__all__ = ["TARGETS"]

_EVERY_BIT = (1 << 32) - 1


def _mark(dimension: str, options: Mapping[str, str]) -> Assign:
    try:
        if "--set-xmark" in options or "--set-mark" in options:
            exact = "--set-mark" in options
            value, _, mask = options["--set-mark" if exact else "--set-xmark"].partition("/")
            bits = int(mask, 0) if mask else _EVERY_BIT
            number = int(value, 0)
            keep = ~bits & _EVERY_BIT
            if exact:
                keep &= ~number & _EVERY_BIT
            return Assign(dimension, dimension, keep, number)
        if "--and-mark" in options:
            return Assign(dimension, dimension, int(options["--and-mark"], 0), 0)
        if "--or-mark" in options:
            number = int(options["--or-mark"], 0)
            return Assign(dimension, dimension, ~number & _EVERY_BIT, number)
        if "--xor-mark" in options:
            return Assign(dimension, dimension, _EVERY_BIT, int(options["--xor-mark"], 0))
    except ValueError:
        pass
    return Assign(dimension, known=False)


def _connmark(options: Mapping[str, str]) -> Assign:
    whole_mark = not _is_masked(options)
    if "--save-mark" in options:
        return Assign("ctmark", "mark", _EVERY_BIT, known=whole_mark)
    if "--restore-mark" in options:
        return Assign("mark", "ctmark", _EVERY_BIT, known=whole_mark)
    return _mark("ctmark", options)


def _is_masked(options: Mapping[str, str]) -> bool:
    """Whether only some bits are copied, or nobody knows which."""
    try:
        masks = [int(options[k], 0) for k in ("--nfmask", "--ctmask", "--mask") if options.get(k)]
    except ValueError:
        return True
    return any(mask != _EVERY_BIT for mask in masks)


def _dnat(text: str) -> Nat:
    """Read ``--to-destination 10.0.0.1:80``; nothing at all (``()``) stands for what cannot be
    read.
    """
    address, port = text, ""
    if text.startswith("["):
        address, _, port = text[1:].partition("]")
        port = port.removeprefix(":")
    elif text.count(":") == 1:
        address, _, port = text.partition(":")
    try:
        where = parse_network(address) if address else None
    except ValueError:
        where = ()
    return Nat(address=where, port=_port_range(port or None))


def _port_range(text: str | None) -> Spans | None:
    if not text:
        return None
    first, dash, last = text.partition("/")[0].partition("-")
    try:
        return joined([(int(first), int(last if dash else first))])
    except ValueError:
        return whole(65535)


def _tproxy(_: Mapping[str, str]) -> list[Step]:
    """Accept where a transparent proxy listens, and drop where none does."""
    return [
        Assign("mark", known=False),
        Chance(Reason.UNKNOWN, "whether a transparent proxy listens", Verdict.DROP),
        Action(Verdict.ACCEPT),
    ]


TARGETS: Mapping[str, Callable[[Mapping[str, str]], list[Step]]] = {
    "MARK": lambda options: [_mark("mark", options)],
    "CONNMARK": lambda options: [_connmark(options)],
    "CT": lambda options: [Notrack()] if "--notrack" in options else [],
    "NOTRACK": lambda _: [Notrack()],
    "DNAT": lambda options: [_dnat(options.get("--to-destination", ""))],
    "NETMAP": lambda options: [_dnat(options.get("--to", ""))],
    "REDIRECT": lambda options: [
        Nat(port=_port_range(options.get("--to-ports")), is_redirect=True)
    ],
    "HMARK": lambda _: [Assign("mark", known=False)],
    "TTL": lambda _: [Assign("ip.ttl", known=False)],
    "HL": lambda _: [Assign("ip6.hoplimit", known=False)],
    "DSCP": lambda _: [Assign("ip.dscp", known=False), Assign("ip6.dscp", known=False)],
    "TOS": lambda _: [Assign("ip.dscp", known=False), Assign("ip6.dscp", known=False)],
    "ECN": lambda _: [Assign("ip.ecn", known=False)],
    "MASQUERADE": lambda _: [Action(Verdict.ACCEPT)],
    "SNAT": lambda _: [Action(Verdict.ACCEPT)],
    "TPROXY": _tproxy,
}
