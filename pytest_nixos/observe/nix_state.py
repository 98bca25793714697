"""Generations of a machine: what is booted, current, kept and rooted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytest_nixos.observe.fact import Fact, lines, pairs

__all__ = ["GENERATION_FACTS"]

Json = Any

_LINKS = r"""
{ read -r booted; read -r current; read -r profile; } \
  < <(readlink -f /run/booted-system /run/current-system /nix/var/nix/profiles/system)
printf '%s\n' "booted=$booted" "current=$current" "profile=$profile"
"""

# -ef follows links and compares files: no program for each of six paths.
_KERNEL = r"""
[ -e /run/booted-system ] || exit 3
for part in kernel initrd kernel-modules; do
  [ -e /run/booted-system/$part ] || continue
  [ /run/booted-system/$part -ef /run/current-system/$part ] || printf '%s\n' "$part"
done"""

_PREVIOUS = r"""
for link in /nix/var/nix/profiles/system-*-link; do if [ -L "$link" ]; then printf '%s\n' "$link"; fi; done"""

_VERIFY = r"""
system=$(readlink -f /run/current-system)
nix-store --verify-path "$system" >/dev/null && echo intact || echo broken"""

_ROOTS = r"""
nix-store --gc --print-roots | grep -v -e '^/proc/' -e '^{' | sed 's/ -> .*//' |
  grep -v -e '^/nix/var/nix/profiles/' -e '^/nix/var/nix/gcroots/' -e '^/run/' -e '/\.direnv/' \
    -e '/\.local/state/nix/profiles/' -e '/\.local/state/home-manager/'
true"""

_IMPERATIVE = r"""
for profile in /nix/var/nix/profiles/default /nix/var/nix/profiles/per-user/*/profile /root/.nix-profile \
    /home/*/.nix-profile /root/.local/state/nix/profiles/profile /home/*/.local/state/nix/profiles/profile; do
  [ -e "$profile/manifest.nix" ] || [ -e "$profile/manifest.json" ] || continue
  nix-env --query --profile "$profile" | sed "s|^|$profile |"
  if [ -e "$profile/manifest.json" ]; then
    grep -o '"storePaths":\["[^"]*"' "$profile/manifest.json" | sed "s|.*/nix/store/[a-z0-9]*-|$profile |; s|\"$||"
  fi
done
true"""

_CHANNELS = r"""
for file in /root/.nix-channels /home/*/.nix-channels; do [ -s "$file" ] && sed "s|^|$file |" "$file"; done
true"""


def _links(text: str) -> dict[str, Json]:
    found = pairs(text)
    return {name: found.get(name) or None for name in ("booted", "current", "profile")}


def _agree(text: str) -> list[str]:
    links = _links(text)
    return sorted({str(link) for link in links.values() if link is not None})


GENERATION_FACTS: Mapping[str, Fact] = {
    "previous": Fact(
        script=_PREVIOUS,
        parse=lambda text: max(0, len(lines(text)) - 1),
        about="number of generations of the system profile beside the newest",
    ),
    "systems": Fact(
        script=_LINKS,
        parse=_agree,
        about="the systems that are booted, current and the profile's; one where all agree",
    ),
    "reboot-pending": Fact(
        script=_KERNEL,
        parse=lines,
        about="parts (kernel, initrd, modules) in which the booted and the current system differ",
        lacking="the machine does not say what it was booted from",
    ),
    "kernel-release": Fact(
        script="read -r release < /proc/sys/kernel/osrelease && printf '%s\\n' \"$release\"",
        parse=lambda text: ".".join(text.strip().split(".")[:2]) or None,
        about="series of the running kernel, for example `6.12`",
    ),
    "system-path": Fact(
        script=_VERIFY,
        parse=lambda text: text.strip(),
        needs=("nix-store",),
        about="whether the running system's own store path is intact",
    ),
    "stray-roots": Fact(
        script=_ROOTS,
        parse=lines,
        needs=("nix-store", "grep", "sed"),
        about="garbage collector roots outside of profiles, such as forgotten `result` links",
    ),
    "imperative-packages": Fact(
        script=_IMPERATIVE,
        parse=lines,
        needs=("nix-env", "grep", "sed"),
        about="packages installed by hand with nix-env or nix profile",
    ),
    "channels": Fact(
        script=_CHANNELS,
        parse=lines,
        needs=("sed",),
        about="channels that users subscribe to",
    ),
}
