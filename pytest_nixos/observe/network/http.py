"""HTTP answers, asked from inside the guest."""

from __future__ import annotations

import shlex
import urllib.parse
from collections.abc import Mapping, Sequence

import msgspec

from pytest_nixos.observe.base import Probe, ProbeOutput
from pytest_nixos.observe.text import whole

__all__ = ["HttpAnswer", "HttpRequest", "http"]

_DEFAULT_PORT = 80
# In the quotes of a curl settings file (curl(1), --config).
_ESCAPES = str.maketrans(
    {"\\": r"\\", '"': r"\"", "\n": r"\n", "\r": r"\r", "\t": r"\t", "\v": r"\v"}
)

# With curl where it is there; else over bash's own /dev/tcp, which speaks plain HTTP/1.0 only.
_BASH = r"""
PATH=$PATH:/run/current-system/sw/bin
if command -v curl >/dev/null; then tool=curl; else tool=bash; fi
title tool "$tool"
ask_bash() {{ # host port path method body content-type
  exec {{fd}}<>"/dev/tcp/$1/$2" || return 7
  printf '%s %s HTTP/1.0\r\nHost: %s:%s\r\nConnection: close\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s' \
    "$4" "$3" "$1" "$2" "$6" "${{#5}}" "$5" >&$fd
  timeout {timeout} head -c {limit} <&$fd
  local status=$?; exec {{fd}}>&-; return $status
}}
export LC_ALL=C
if [ "$tool" = bash ]; then
"""
_ASK_BASH = r"""
title answer; ask_bash {words} 2>/dev/null; title status $?
"""
# One curl asks for all; its settings come by a pipe, since others can read its arguments, and the mark
# among them. Where an answer is so long that the rest is lost, each is asked for by a curl of its own.
_CURL = r"""
else
settings=({settings})
ask_all() {{
  local index
  for index in "${{!settings[@]}}"; do
    ((index == 0)) || printf 'next\n'
    printf '%s\nwrite-out = "%%{{stderr}}\\n%s=status %%{{exitcode}}\\n\\n%s=answer\\n"\n' "${{settings[index]}}" "$pn_mark" "$pn_mark"
  done
}}
title answer
if ! ask_all | curl --config - 2>&1 | {{ head -c {all}; ! read -r -N 1; }}; then
  title again
  for setting in "${{settings[@]}}"; do
    title answer; printf '%s\n' "$setting" | curl --config - 2>&1 | head -c {limit}
    title status "${{PIPESTATUS[1]}}"
  done
fi
fi
"""


class HttpRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request.

    :param url: ``http://host[:port]/path``; ``https`` needs curl in the guest.
    :param body: text to send.
    """

    url: str
    method: str = "GET"
    body: str = ""
    content_type: str = "application/json"


class HttpAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What came back.

    :param status: HTTP status, ``None`` if there was no HTTP answer.
    :param headers: names in lower case.
    :param body: cut at the probe's limit.
    :param failure: why there was no answer: curl's words, or bash's exit status; ``""`` if there
        was one.
    """

    status: int | None
    headers: Mapping[str, str]
    body: bytes
    failure: str

    @property
    def text(self) -> str:
        """The body as UTF-8, undecodable bytes replaced."""
        return self.body.decode(errors="replace")

    @property
    def succeeded(self) -> bool:
        """Whether the status is 2xx."""
        return self.status is not None and 200 <= self.status < 300


def http(
    requests: Sequence[HttpRequest | str],
    *,
    timeout_s: float = 10.0,
    limit_bytes: int = 1 << 18,
    name: str = "http",
) -> Probe[Sequence[HttpAnswer]]:
    """Ask for many URLs from inside the guest, one after another; a text is a GET.

    :param timeout_s: seconds that one request may take.
    :param limit_bytes: of header and body together; the rest is not read.
    :return: probe of one answer for each request, in order.
    """
    asked = [HttpRequest(url=r) if isinstance(r, str) else r for r in requests]
    script = _BASH.format(timeout=f"{timeout_s:g}", limit=limit_bytes)
    script += "".join(_ASK_BASH.format(words=_bash_words(request)) for request in asked)
    script += _CURL.format(
        settings=shlex.join(_curl_settings(request, timeout_s) for request in asked),
        limit=limit_bytes,
        all=limit_bytes * len(asked),
    )
    return Probe(
        name=name, script=script, parse=lambda output: _parse(output, len(asked), limit_bytes)
    )


def _curl_settings(request: HttpRequest, timeout_s: float) -> str:
    """Return what curl reads of one request, in the form of its ``--config``."""
    settings = {
        "url": request.url,
        "request": request.method,
        "noproxy": "*",
        "max-time": f"{timeout_s:g}",
    }
    if request.body:
        settings |= {"data-binary": request.body, "header": f"Content-Type: {request.content_type}"}
    lines = (f'{name} = "{value.translate(_ESCAPES)}"' for name, value in settings.items())
    return "\n".join(("silent", "show-error", "include", *lines))


def _bash_words(request: HttpRequest) -> str:
    url = urllib.parse.urlsplit(request.url)
    path = urllib.parse.urlunsplit(("", "", url.path or "/", url.query, ""))
    words = [
        url.hostname or "",
        _port(url),
        path,
        request.method,
        request.body,
        request.content_type,
    ]
    return shlex.join(words)


def _port(url: urllib.parse.SplitResult) -> str:
    try:
        return str(url.port or _DEFAULT_PORT)
    except ValueError:
        # No machine has such a port: the connection fails, and that is told.
        return url.netloc.rpartition(":")[2]


def _parse(output: ProbeOutput, count: int, limit_bytes: int) -> Sequence[HttpAnswer]:
    records = output.raw_records
    tool = records[0][0].removeprefix("tool ") if records else ""
    again = next((n for n, (title, _) in enumerate(records) if title == "again"), 0)
    parts = zip(records[again + 1 :: 2], records[again + 2 :: 2], strict=False)
    answers = [
        _parse_answer(raw[:limit_bytes], failure=f"{tool}: exit {status}")
        for (_, raw), (status, _) in parts
    ]
    missing = HttpAnswer(
        status=None, headers={}, body=b"", failure="the probe did not get that far"
    )
    return [*answers[:count], *[missing] * (count - len(answers))]


def _parse_answer(raw: bytes, *, failure: str) -> HttpAnswer:
    # A proxy's or 100-continue answer may come first.
    while raw.startswith(b"HTTP/"):
        head, _, rest = raw.partition(b"\r\n\r\n")
        first, *header_lines = head.decode("latin-1").split("\r\n")
        status = _status(first)
        if status is not None and 100 <= status < 200 and rest:
            raw = rest
            continue
        return HttpAnswer(status=status, headers=_headers(header_lines), body=rest, failure="")
    words = raw.decode(errors="replace").strip()
    return HttpAnswer(status=None, headers={}, body=b"", failure=words or failure)


def _status(line: str) -> int | None:
    fields = line.split(" ")
    return whole(fields[1]) if len(fields) > 1 else None


def _headers(lines: Sequence[str]) -> Mapping[str, str]:
    pairs = (line.partition(":") for line in lines)
    return {name.strip().lower(): value.strip() for name, colon, value in pairs if colon}
