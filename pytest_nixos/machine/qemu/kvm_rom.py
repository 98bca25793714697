"""A 64 KiB "BIOS" that proves a processor: long mode, an interrupt and back, paging, then exit
status 85.

Assembled from ``long-mode.S`` beside this file (a test assembles it again); only its code is kept
here.
"""

from __future__ import annotations

import base64

__all__ = ["EXIT_USABLE", "rom_image"]

# QEMU's isa-debug-exit device ends with 2 * value + 1; the payload writes 0x2a.
EXIT_USABLE = 85

_SIZE = 1 << 16
_RESET_VECTOR = 0xFFF0
_JUMP_TO_START = bytes.fromhex("ea000000f0")  # ljmp $0xf000,$0
_CODE = (
    "+jHAjtiOwPxmvwAQAABmMcBmuQAMAABnZvOrZscGABADIAAAZscGACADMAAAZscGADCDAAAAZrgAEAAADyLYZrgg"
    "AAAADyLgZrmAAADADzJmDQABAAAPMC5mDwEW+ABmuAEAAIAPIsBm6nAADwAIALgQAAAAjtC8AIAAAL8wYAAAuNIA"
    "DwBmiQdmx0cCCABmx0cEAI7B6BCJRwbHRwoAAAAADwEdVQAAADHbzIP7UXUXDyDYDyLYuYAAAMAPMg+64ApzBLAq"
    "6wKwAWa69ADu9Ov9u1EAAABIz420AACNdAAAAAAAAAAAAP//AAAAm68A//8AAACTzwAXAOAADwD/DwBg"
)


def rom_image() -> bytes:
    """Return the whole ROM: code at its start, a jump to it at the reset vector, zeros
    elsewhere.
    """
    code = base64.b64decode(_CODE)
    head = code.ljust(_RESET_VECTOR, b"\0")
    return (head + _JUMP_TO_START).ljust(_SIZE, b"\0")
