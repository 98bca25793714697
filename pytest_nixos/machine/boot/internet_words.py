"""What programs say where they reach nobody, and whom they name.

The wording of resolvers was read from glibc ``gai_strerror``, curl ``lib/strerror.c``, Go
``net/dnsclient_unix.go`` and ``net/net.go``, c-ares and libuv; that of mounts from nfs-utils
``utils/mount/stropts.c`` and cifs-utils ``mount.cifs.c``.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from ipaddress import ip_address

__all__ = ["addresses", "is_about_network", "is_other_fault", "is_outside", "targets", "urls"]

# As text: in most runs no unit fails, and none of them is compiled.
_NAME_SIGN = (
    r"(?i)could(?:n't| not) resolve|temporary failure in name resolution|name or service not known"
    r"|no such host|server misbehaving|unknown ?host|unable to resolve|cannot resolve"
    r"|failed to (?:resolve|lookup)|EAI_AGAIN|ENOTFOUND|could not translate host name"
    r"|name resolution (?:failure|error|failed)|resolving timed out|no address associated"
    r"|\blookup \S+ on \S+:\d+:"
)
_ROUTE_SIGN = r"(?i)network (?:is )?unreachable|ENETUNREACH|no route to host|EHOSTUNREACH|host (?:is )?unreachable"
_TIMEOUT_SIGN = (
    r"(?i)connection timed out|i/o timeout|connect(?:ion)? timeout|deadline exceeded|ETIMEDOUT"
    r"|timed out (?:while )?(?:connecting|waiting)"
)
# Where names are answered and services are not: refused by somebody outside.
_REFUSED_SIGN = r"(?i)connection refused|could(?:n't| not) connect|ECONNREFUSED"
_NAME = r"['\"\u2018\u201c]?([A-Za-z0-9_][\w.-]*)"
# Where a message names what it did not reach; without one, any address of the line will do.
_TARGETS = (
    rf"resolve host(?:name)?(?: address)?:? (?!name\b){_NAME}",
    rf"\blookup (?!address information){_NAME}",
    rf"host name {_NAME}",
    rf"(?:ENOTFOUND|EAI_AGAIN) {_NAME}",
    rf"resolve server {_NAME}",
    rf"UnknownHostException: {_NAME}",
    rf"address for {_NAME}",
    rf"failed to resolve {_NAME}",
    r"\bhost='([\w.:-]+)'",
    r"\bdial (?:tcp|udp)[46]? \[?([0-9a-zA-Z_.:-]+?)\]?:\d+",
    r"\bunreachable for ([\w.-]+):",
)
_URL = re.compile(
    r"\b[a-z][a-z0-9+.-]*://(?:[^/@\s'\"]*@)?\[?([0-9a-zA-Z_.:-]+?)\]?(?=[:/\s'\"?#]|$)"
)
_QUALIFIED = re.compile(
    r"(?<![\w./@-])((?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)+[a-z]{2,24})(?![\w/-])"
)
_ADDRESS = re.compile(r"(?<![\w.])(\d{1,3}(?:\.\d{1,3}){3})(?![\w.])")
# What looks like a host's name and is none.
_FILE_ENDINGS = frozenset(
    {
        *("service", "socket", "mount", "target", "timer", "path", "sh", "py", "nix", "conf"),
        *("json", "so", "go", "rs", "js", "ts", "pl", "rb", "toml", "yaml", "yml", "log", "txt"),
        *("pem", "crt", "key", "lock", "db", "gaierror", "exceptions", "exception", "error"),
        *("timeout", "localhost"),
    }
)
# A fault that no network would mend.
_OTHER_FAULT = (
    r"(?i)permission denied|no such file or directory|command not found|address already in use"
    r"|operation not permitted|read-only file system|no space left|syntax error|parse error"
    r"|unrecogni[sz]ed (?:option|argument|field)|(?:unknown|unsupported|invalid) "
    r"(?:option|flag|directive|key|config|value|type|filesystem|dns provider)"
    r"|segmentation fault|^panic: |assertion .*failed|out of memory|cannot allocate memory"
    r"|not a directory|exec format error|bad option|wrong fs type|(?:Key|Type|Value|Name|Attribute)Error"
    r"|undefined (?:variable|symbol|method)|unbound variable|missing (?:required|mandatory|option)"
    r"|connection refused"
)


def is_about_network(line: str) -> bool:
    """Whether a line complains of something that was not reached."""
    if any(re.search(sign, line) for sign in (_NAME_SIGN, _ROUTE_SIGN, _TIMEOUT_SIGN)):
        return True
    return bool(re.search(_REFUSED_SIGN, line)) and any(is_outside(a, ()) for a in addresses(line))


def is_other_fault(line: str) -> bool:
    """Whether a line complains of what no network would mend."""
    return re.search(_OTHER_FAULT, line) is not None


def targets(line: str) -> list[str]:
    """Return whom a message about the network names as not reached."""
    return [found[1] for pattern in _TARGETS if (found := re.search(pattern, line, re.IGNORECASE))]


def urls(text: str) -> list[str]:
    """Return the host of each URL."""
    return _URL.findall(text)


def addresses(line: str) -> list[str]:
    """Return every name and address of the line."""
    found = [*_URL.findall(line), *_ADDRESS.findall(line)]
    names = _QUALIFIED.findall(line)
    return [*found, *(n for n in names if n.rpartition(".")[2].lower() not in _FILE_ENDINGS)]


def is_outside(target: str, local: Collection[str]) -> bool:
    """Whether an address is neither the guest itself nor a bare name.

    :param local: names of the guest itself, in lower case.
    """
    name = target.strip("[].").lower()
    try:
        address = ip_address(name)
    except ValueError:
        bare = "." not in name or name.endswith(".localhost")
        return not bare and name not in local
    return not (address.is_loopback or address.is_unspecified or address.is_link_local)
