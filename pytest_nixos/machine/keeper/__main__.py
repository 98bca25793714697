"""``python -m pytest_nixos.machine.keeper``: reads its order from standard input."""

from __future__ import annotations

import os
import pickle
import sys

from pytest_nixos.errors import NixosError
from pytest_nixos.machine.keeper.keeper import Keeper


def main() -> int:
    """Keep one spare; return the exit status."""
    order = pickle.load(sys.stdin.buffer)  # noqa: S301 - of our own process, in memory that no other can write
    os.chdir("/")
    try:
        Keeper(order).run()
    except (NixosError, OSError) as err:
        sys.stderr.write(f"no spare: {err}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
