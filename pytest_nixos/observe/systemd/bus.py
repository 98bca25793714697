"""Properties of units, asked of systemd one by one over D-Bus.

``systemctl show`` has systemd work out every property of a unit, whichever are wanted; one of them,
NeedDaemonReload, looks for drop-ins in each directory of units and takes longer than all others together. Where a
few properties of many units are wanted, they are asked for by name: all calls go to systemd at once, through
systemd-stdio-bridge(1), which comes with systemd and is what ``systemctl --host`` uses, and the answers are read here.
"""

from __future__ import annotations

import string
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jeepney.low_level import Message

__all__ = ["ASK_UNITS", "ask_units", "read_units"]

_UNIT = "org.freedesktop.systemd1.Unit"
_LONGEST_ANSWER_S = 60
# What jeepney raises at bytes that are no message: it has no error of its own for that.
_NO_MESSAGE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
)

#: Bash: defines ``pn_ask_units CALL... -- UNIT...``, which prints systemd's answers to each of the calls that
#: :func:`ask_units` makes, for each of the units, as they come from the bus. It fails where they are not complete.
#: The bridge ends when its input does, answered or not: so that stays open until the last answer has come, which is
#: known by a number that nobody else can know.
ASK_UNITS = r"""
pn_u32() { printf -v "$1" '\\0%03o\\0%03o\\0%03o\\0000' $(($2 & 255)) $(($2 >> 8 & 255)) $(($2 >> 16 & 255)); }
pn_calls() {
  local -a calls=()
  local call unit path serial=0 number fields length pad
  printf '\0AUTH ANONYMOUS 7079746573742d6e69786f73\r\nBEGIN\r\n'
  while [[ $1 != -- ]]; do calls+=("$1"); shift; done; shift
  for unit; do
    # As sd_bus_path_encode(3) does; these are all the characters that a unit's name may have.
    path=${unit//_/_5f} path=${path//./_2e} path=${path//-/_2d} path=${path//@/_40} path=${path//:/_3a} path=${path//\\/_5c}
    [[ $path != [0-9]* ]] || path=_3$path
    path=/org/freedesktop/systemd1/unit/$path
    pn_u32 number $((++serial))
    pn_u32 fields $((73 + ${#path}))
    pn_u32 length ${#path}
    pad='\0\0\0\0\0\0\0' pad=${pad:0:2 * (-(89 + ${#path}) & 7)}
    for call in "${calls[@]}"; do printf "$call" "$number" "$fields" "$length" "$path" "$pad"; done
  done
  path=/org/freedesktop/systemd1
  pn_u32 fields $((73 + ${#path}))
  pn_u32 length ${#path}
  pad='\0\0\0\0\0\0\0' pad=${pad:0:2 * (-(89 + ${#path}) & 7)}
  printf "${calls[0]}" "$pn_last" "$fields" "$length" "$path" "$pad"
}
pn_ask_units() {
  local LC_ALL=C pn_last= pn_end pn_letters={letters}
  command -v systemd-stdio-bridge >/dev/null || return
  while ((${#pn_last} < 4)); do pn_last+=${pn_letters:SRANDOM % ${#pn_letters}:1}; done
  exec {pn_end}<> <(:)
  { pn_calls "$@"; read -r -t {limit} -N 1 -u "$pn_end" REPLY; [[ $REPLY == y ]]; } | {
    systemd-stdio-bridge --bus-path=unix:path=/run/systemd/private |
      tee >(grep -zqF "$pn_last" && printf y >&"$pn_end")
    printf n >&"$pn_end"
  }
  local pn_complete=${PIPESTATUS[0]}
  exec {pn_end}<&-
  return "$pn_complete"
}
""".replace("{letters}", string.ascii_letters + string.digits).replace(
    "{limit}", str(_LONGEST_ANSWER_S)
)


def ask_units(properties: Sequence[str]) -> str:
    """Return the calls that ask for `properties`, all of ``org.freedesktop.systemd1.Unit``, as words of bash.

    Each is a format of printf, which takes serial number, size of the header's fields, size of the path, path
    and padding; the D-Bus specification, "Message Format", says what stands where.
    """
    return " ".join(f"'{_call(name)}'" for name in properties)


def read_units(
    stdout: bytes, units: Sequence[str], properties: Sequence[str]
) -> Mapping[str, Mapping[str, str]]:
    """Read what ``pn_ask_units`` printed.

    :param units: that were asked for, in order.
    :param properties: as :func:`ask_units` was given them.
    :return: of each unit its properties in the words of ``systemctl show``. A unit that systemd does not know is
        left out, and so is one of whose answers any is missing.
    """
    told: list[list[str | None]] = [[] for _ in units]
    for serial, message in _answers(stdout):
        if 0 < serial <= len(told):
            told[serial - 1].append(_in_words(message))
    found: dict[str, Mapping[str, str]] = {}
    for unit, values in zip(units, told, strict=True):
        if len(values) == len(properties) and None not in values:
            found[unit] = dict(zip(properties, map(str, values), strict=True))
    return found


def _call(name: str) -> str:
    """Return a call of ``Get`` with what varies left open; the fixed part of its fields takes 64 bytes, and
    those of the path 9 with its end.
    """
    body = _text(_UNIT)
    body += b"\0" * (-len(body) % 4) + _text(name)
    begin = b"l\1\0\1" + struct.pack("<I", len(body))
    fields = b"\2\1s\0" + _text("org.freedesktop.DBus.Properties")
    fields += b"\3\1s\0" + _text("Get") + bytes(4) + b"\x08\1g\0\2ss\0" + b"\1\1o\0"
    return f"{_escaped(begin)}%b%b{_escaped(fields)}%b%s\\000%b{_escaped(body)}"


def _text(text: str) -> bytes:
    return struct.pack("<I", len(text)) + text.encode() + b"\0"


def _escaped(raw: bytes) -> str:
    return "".join(f"\\{byte:03o}" for byte in raw)


def _answers(stdout: bytes) -> Iterator[tuple[int, Message]]:
    """Return each whole message behind the greeting, with the number of the call that it answers."""
    greeting, _, rest = stdout.partition(b"\r\n")
    if not greeting.startswith(b"OK "):
        return
    # Loads where a machine has answered, and not when suites are collected.
    from jeepney.low_level import HeaderFields, Parser

    parser = Parser()
    parser.add_data(rest)
    while True:
        try:
            message = parser.get_next_message()
        except _NO_MESSAGE:
            return
        if message is None:
            return
        serial = message.header.fields.get(HeaderFields.reply_serial)
        if isinstance(serial, int):
            yield serial, message


def _in_words(message: Message) -> str | None:
    """Return the value that was answered as ``systemctl show`` prints it: text, numbers and lists of words."""
    from jeepney.low_level import MessageType

    match message.header.message_type, message.body:
        case MessageType.method_return, ((("s" | "o"), str(text)),):
            return text
        case MessageType.method_return, (("as", list(words)),):
            return " ".join(map(str, words))
        case MessageType.method_return, (("t", int(number)),):
            return str(number)
    return None
