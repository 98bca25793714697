"""Import this package as Python does, without pytest's rewriting of asserts.

pytest rewrites the asserts of every module of a distribution that has a ``pytest11`` entry point
(docs.pytest.org, "Assertion rewriting for plugins"). Where rewritten bytecode cannot be written
beside the module, as in a Nix store, a read-only image or under ``PYTHONDONTWRITEBYTECODE``, that
parses and compiles all of them again in each run; and where it can be, to read it takes pytest four
times as long as Python's own. Only the tests among the checks gain by it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

__all__ = ["forget_unloaded", "import_plainly"]

_PACKAGE = "pytest_nixos."
_CHECKS = "pytest_nixos.checks."


class _PlainFinder(MetaPathFinder):
    """Finds this package's modules for Python's own loader, with the bytecode that is installed."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith(_PACKAGE) or (
            fullname.startswith(_CHECKS) and _is_test(fullname)
        ):
            return None
        return PathFinder.find_spec(fullname, path, target)


def _is_test(name: str) -> bool:
    return name.rpartition(".")[2].startswith("test_")


def import_plainly() -> None:
    """Put the finder before pytest's; a second call changes nothing."""
    if not any(isinstance(finder, _PlainFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _PlainFinder())


def forget_unloaded() -> None:
    """Take from our packages the modules that Python has unloaded.

    pytester does that after a run within its own process (``runpytest_inprocess``), and leaves the
    package's attribute: ``from package import module`` would give the next run the module of the
    last one, with its own keys and types, beside new ones.
    """
    for name, package in list(sys.modules.items()):
        if f"{name}.".startswith(_PACKAGE) and hasattr(package, "__path__"):
            for attribute, value in list(vars(package).items()):
                own = f"{name}.{attribute}"
                if (
                    isinstance(value, ModuleType)
                    and value.__name__ == own
                    and own not in sys.modules
                ):
                    delattr(package, attribute)
