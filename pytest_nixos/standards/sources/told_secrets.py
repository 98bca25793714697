"""Which secrets findings are about: one that stands in the source, in a unit and in the closure is
one, told in three places.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from pytest_nixos.subject import Subject, SubjectKind

__all__ = ["secrets_of"]

#: "hosts/web.nix:3: password at the name DB_PASSWORD (tr0…)"
_NAMED = re.compile(r"at the name (?P<name>\S+)")
_FOUND = re.compile(r":\d+: (?P<name>.+)$")
#: "web.service: DB_PASSWORD", "services.grafana.settings.security.admin_password"
_DECLARED = re.compile(r"(?:: |\.)(?P<name>[\w-]+)$")


def secrets_of(told: object) -> tuple[Subject, ...]:
    """Return the secrets that a finding tells of: by the name beside each, or by its kind and first
    characters.

    :param told: what the finding observed, a list of texts.
    """
    texts: Iterable[object] = told if isinstance(told, list | tuple) else ()
    names = (_name(str(text)) for text in texts)
    return tuple(Subject(SubjectKind.SECRET, n) for n in dict.fromkeys(filter(None, names)))


def _name(text: str) -> str:
    found = next((m for p in (_NAMED, _FOUND, _DECLARED) if (m := p.search(text))), None)
    return "" if found is None else found["name"].lower()
