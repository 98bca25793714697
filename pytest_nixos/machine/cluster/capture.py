"""What went over a network, as a file that tshark, tcpdump and Wireshark read (pcap,
``man 5 pcap-savefile``).
"""

from __future__ import annotations

import struct
import threading
import time
from collections import deque
from pathlib import Path

__all__ = ["Capture"]

# Nanosecond time stamps, version 2.4, Ethernet.
_HEAD = struct.pack("=IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 1 << 16, 1)
_RECORD = struct.Struct("=IIII")
_NS = 1_000_000_000
_MOST_BYTES = 16 << 20


class Capture:
    """The last frames of a network, at most `most_bytes` of them."""

    def __init__(self, *, most_bytes: int = _MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._frames: deque[tuple[int, bytes]] = deque()
        self._bytes = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._frames)

    def add(self, frame: bytes) -> None:
        """Note a frame as it was sent."""
        with self._lock:
            self._frames.append((time.time_ns(), frame))
            self._bytes += len(frame)
            while self._bytes > self._most_bytes:
                self._bytes -= len(self._frames.popleft()[1])

    def frames(self) -> tuple[tuple[float, bytes], ...]:
        """Return the frames with the time of each, seconds since 1970."""
        with self._lock:
            return tuple((at_ns / _NS, frame) for at_ns, frame in self._frames)

    def to_bytes(self) -> bytes:
        """Return the file's content."""
        with self._lock:
            frames = list(self._frames)
        records = (
            _RECORD.pack(at_ns // _NS, at_ns % _NS, len(frame), len(frame)) + frame
            for at_ns, frame in frames
        )
        return _HEAD + b"".join(records)

    def write(self, path: Path) -> Path:
        """Write the file and return its path."""
        path.write_bytes(self.to_bytes())
        return path
