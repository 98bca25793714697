"""Entry point of ``python -m pytest_nixos``."""

from __future__ import annotations

import sys

from pytest_nixos.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
