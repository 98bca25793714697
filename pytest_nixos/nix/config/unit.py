"""A declared systemd unit, and the text of its file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Self

import msgspec

__all__ = ["Unit", "parse_boolean", "parse_unit_file"]

Json = Any

_TRUE = frozenset({"1", "yes", "y", "true", "t", "on"})
_FALSE = frozenset({"0", "no", "n", "false", "f", "off"})
#: A path where a word, an assignment or the part after a colon begins.
_PATH = re.compile(r"(?:(?<=[\s:=\"'!+@])|^)(/[\w./@+:-]+)")
# systemd.timer(5), systemd.socket(5), systemd.path(5).
_STARTING = {
    "timer": ("Timer", "Unit"),
    "socket": ("Socket", "Service"),
    "path": ("Path", "Unit"),
}
#: Directories that systemd makes for a unit, systemd.exec(5).
_OWN_DIRECTORIES = {
    "StateDirectory": "/var/lib",
    "CacheDirectory": "/var/cache",
    "LogsDirectory": "/var/log",
}


class Unit(msgspec.Struct, frozen=True, kw_only=True):
    """One declared systemd unit.

    :param name: with suffix, ``ollama.service``.
    :param settings: section to key to values in order, as text, as they stand in the unit file
        (``{"Service": {"ProtectSystem": ("strict",)}}``); booleans as ``true``/``false``.
    :param wanted_by: units that pull it in (``wantedBy`` and ``requiredBy``).
    :param is_drop_in: whether it only adds to units of that name (``overrideStrategy = "asDropin"``).
    """

    name: str
    enabled: bool
    settings: Mapping[str, Mapping[str, tuple[str, ...]]]
    wanted_by: tuple[str, ...]
    is_drop_in: bool = False

    @classmethod
    def parse(cls, name: str, data: Mapping[str, Json]) -> Self:
        """Read what ``facts.nix`` says of one entry of ``systemd.units``."""
        return cls(
            name=name,
            enabled=data["enabled"],
            settings=parse_unit_file(data["text"]),
            wanted_by=tuple(data["wantedBy"]),
            # Recordings of earlier releases have no such fact.
            is_drop_in=data.get("dropIn", False),
        )

    def plain(self) -> Json:
        """Return it as JSON, to be compared."""
        return {
            "enabled": self.enabled,
            "wantedBy": list(self.wanted_by),
            **{
                section: {key: list(values) for key, values in settings.items()}
                for section, settings in self.settings.items()
            },
        }

    def directives(self) -> Iterator[tuple[str, str, str]]:
        """Yield section, key and value of each line."""
        for section, settings in self.settings.items():
            for key, values in settings.items():
                for value in values:
                    yield section, key, value

    def setting(self, section: str, key: str) -> tuple[str, ...]:
        """Return the declared values of one key, empty if it is not declared."""
        return self.settings.get(section, {}).get(key, ())

    def words(self, section: str, key: str) -> tuple[str, ...]:
        """Return the declared words of one key that takes a list."""
        return tuple(word for text in self.setting(section, key) for word in text.split())

    def is_on(self, section: str, key: str) -> bool:
        """Whether a switch is on; the last value counts."""
        values = self.setting(section, key)
        return bool(values) and parse_boolean(values[-1]) is True

    @property
    def starting(self) -> tuple[str, str] | None:
        """Section and key by which a timer, socket or path names what it starts, ``None`` for a unit of
        another kind.
        """
        return _STARTING.get(self.name.rpartition(".")[2])

    @property
    def starts(self) -> str:
        """The unit that a timer, socket or path starts: the service of its name unless it names
        another; ``""`` for a unit of another kind.
        """
        if self.starting is None:
            return ""
        named = self.setting(*self.starting)
        return named[-1] if named else f"{self.name.rpartition('.')[0]}.service"

    @property
    def is_prefix_of_slices(self) -> bool:
        """Whether its name can only stand for the slices that begin with it: ``user-.slice.d`` adds to
        ``user-1000.slice``, and systemd refuses a slice ``user-.slice`` (systemd.unit(5),
        systemd.slice(5)).
        """
        return self.name.endswith("-.slice") and self.name != "-.slice"

    @property
    def needed_paths(self) -> frozenset[str]:
        """Absolute paths that the unit file names, those outside of the store; what it may do
        without (``EnvironmentFile=-/path``) is left out.
        """
        found = {
            path.rstrip("/.,;:") for _, _, text in self.directives() for path in _PATH.findall(text)
        }
        for key, parent in _OWN_DIRECTORIES.items():
            names = " ".join(self.setting("Service", key)).split()
            found |= {f"{parent}/{name.partition(':')[0]}" for name in names}
        return frozenset(path for path in found if path and not path.startswith("/nix/store/"))

    def needs_below(self, directory: str) -> bool:
        """Whether it names `directory` or something below it."""
        return any(f"{path}/".startswith(f"{directory.rstrip('/')}/") for path in self.needed_paths)


def parse_boolean(text: str) -> bool | None:
    """Read a switch as systemd does; ``None`` for what is none.

    Source: ``parse_boolean()`` of systemd's src/basic/parse-util.c.
    """
    word = text.lower()
    if word in _TRUE:
        return True
    return False if word in _FALSE else None


def switch_word(value: object) -> str:
    """Return ``true`` or ``false`` for a switch in any spelling of systemd's, and any other word as it
    stands.
    """
    text = str(value)
    read = parse_boolean(text)
    return text if read is None else str(read).lower()


def parse_unit_file(text: str) -> dict[str, dict[str, tuple[str, ...]]]:
    """Read a unit file into section, key and values in order, as systemd.syntax(7) says.

    An empty assignment is kept as ``""``: for most list settings it resets what stands above it.
    """
    sections: dict[str, dict[str, tuple[str, ...]]] = {}
    section: dict[str, tuple[str, ...]] = {}
    for line in _joined_lines(text):
        if line.startswith("[") and line.endswith("]"):
            section = sections.setdefault(line[1:-1], {})
            continue
        key, assigned, value = line.partition("=")
        if assigned:
            section[key.strip()] = (*section.get(key.strip(), ()), value.strip())
    return sections


def _joined_lines(text: str) -> list[str]:
    lines: list[str] = []
    continued = False
    for raw in text.splitlines():
        line = raw.strip()
        if line.startswith(("#", ";")) or (not line and not continued):
            continue
        if continued:
            lines[-1] = f"{lines[-1]} {line}"
        else:
            lines.append(line)
        continued = line.endswith("\\")
        if continued:
            lines[-1] = lines[-1].removesuffix("\\").rstrip()
    return lines
