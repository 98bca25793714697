"""Texts without their secrets, for what is kept or given away."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

from pytest_nixos.secrets.scan import secret_spans

__all__ = ["REDACTED", "redact_json", "redact_texts"]

Json = Any
REDACTED = "REDACTED"
#: A shorter secret is a common word elsewhere.
_DISTINCT = 12


def redact_texts(named: Sequence[tuple[str, str]]) -> list[str]:
    """Return texts with each secret in them replaced, in their order.

    They are searched as one text, which is much faster than one by one; a secret that one text names
    and another one repeats is replaced in both.

    :param named: name and text; the name may tell that the text is a secret, as ``password`` does.
    """
    whole, starts = _joined(named)
    found = [set[str]() for _ in named]
    for start, end in secret_spans(whole):
        at, index = starts[bisect_right(starts, (start, len(named))) - 1]
        # A key of several lines may end behind the text that it begins in.
        found[index].add(whole[start : min(end, at + len(named[index][1]))])
    everywhere = {secret for secrets in found for secret in secrets if len(secret) >= _DISTINCT}
    return [
        _without(text, secrets | {s for s in everywhere if s in text})
        for (_, text), secrets in zip(named, found, strict=True)
    ]


def redact_json(value: Json, name: str = "") -> Json:
    """Return a JSON value with each secret in its texts replaced; keys stay as they are."""
    leaves = list(_leaves(value, name))
    texts = iter(redact_texts(leaves))
    return _refilled(value, texts)


def _joined(named: Sequence[tuple[str, str]]) -> tuple[str, list[tuple[int, int]]]:
    """Return all texts as one, each on lines of its own, and one of a single line once more behind its
    name; with it where each begins, and which one it is.
    """
    starts: list[tuple[int, int]] = []
    parts: list[str] = []
    length = 0
    for index, (name, text) in enumerate(named):
        begins = ["", f"{' '.join(name.split())}="] if name and "\n" not in text else [""]
        for begin in begins:
            starts.append((length + len(begin), index))
            parts.append(f"{begin}{text}\n")
            length += len(parts[-1])
    return "".join(parts), starts


def _without(text: str, secrets: set[str]) -> str:
    for secret in sorted(secrets, key=len, reverse=True):
        if secret:
            text = text.replace(secret, REDACTED)
    return text


def _leaves(value: Json, name: str) -> list[tuple[str, str]]:
    """Return the texts of a value in order, each with the name that tells most of it."""
    found: list[tuple[str, str]] = []
    if isinstance(value, str):
        found.append((name, value))
    elif isinstance(value, Mapping):
        # An option says its own name beside its value.
        own = value.get("path")
        for key, item in value.items():
            named = own if key == "value" and isinstance(own, str) else str(key)
            found += _leaves(item, named)
    elif isinstance(value, list | tuple):
        for item in value:
            found += _leaves(item, name)
    return found


def _refilled(value: Json, texts: Any) -> Json:
    if isinstance(value, str):
        return next(texts)
    if isinstance(value, Mapping):
        return {key: _refilled(item, texts) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_refilled(item, texts) for item in value]
    return value
