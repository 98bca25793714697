"""What is kept of a flake between runs: answers under the flake's content, its inputs, the
settings and the Nix that reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_nixos.nix.building.store import Nix
from pytest_nixos.nix.command.cache import evaluation_key
from pytest_nixos.nix.command.metadata import content_identity
from pytest_nixos.nix.command.refs import FlakeRef, HomesRef, NixosTestRef
from pytest_nixos.nix.evaluate import describe

__all__ = ["Kept"]

Json = Any


class Kept:
    """Answers about one flake as it was when it was opened.

    :param metadata: what ``nix flake metadata`` said of it then.
    """

    def __init__(self, nix: Nix, ref: FlakeRef, metadata: Mapping[str, Json]) -> None:
        self._nix = nix
        self._ref = ref
        self._identity = self._identified(metadata)

    def get(self, question: Mapping[str, object]) -> Mapping[str, Json]:
        """Return the answer that is kept to a question, an empty one if there is none.

        :param question: JSON.
        """
        cache, key = self._nix.settings.cache, self._key(question)
        return (cache.get(key) if cache is not None and key is not None else None) or {}

    def instantiated(self, question: Mapping[str, object]) -> Mapping[str, Json] | None:
        """Return the answer that is kept to a question, if the derivation in it was not
        collected since.
        """
        document = self.get(question)
        derivation = document.get("derivation")
        return document if isinstance(derivation, str) and Path(derivation).exists() else None

    def put(self, question: Mapping[str, object], answer: Mapping[str, Json]) -> None:
        """Keep an answer, unless somebody edited the flake in between: it is then not one about
        what was opened.
        """
        cache, key = self._nix.settings.cache, self._key(question)
        if cache is None or key is None:
            return
        if self._identified(describe(self._nix, self._ref)) == self._identity:
            cache.put(key, answer)

    def _key(self, question: Mapping[str, object]) -> str | None:
        if self._identity is None:
            return None
        of = {"test": self._ref.attribute} if isinstance(self._ref, NixosTestRef) else {}
        if isinstance(self._ref, HomesRef):
            of = {"output": "homeConfigurations"}
        return evaluation_key({"locked": self._identity, **of, **question})

    def _identified(self, metadata: Mapping[str, Json]) -> str | None:
        """Return what the flake, its inputs and the Nix that reads them are known by.

        It is ``None`` where an answer may change although nothing of that does.
        """
        settings, content = self._nix.settings, content_identity(metadata)
        if settings.cache is None or not settings.pure or content is None:
            return None
        return evaluation_key(
            {
                "flake": content,
                "overrides": settings.override_inputs,
                "options": settings.nix_options,
                "nix": self._nix.version(),
            }
        )
