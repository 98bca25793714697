"""Users, groups and passwords of a machine, never a password's hash."""

from __future__ import annotations

from collections.abc import Mapping

from pytest_nixos.observe.fact import Fact
from pytest_nixos.observe.text import lines, names, pairs

__all__ = ["ACCOUNT_FACTS"]

# Builtins only: every program costs a VM 10 ms and more. What is printed of a password field is its
# meaning, never a hash.
_ROOT = r"""
while IFS=: read -r name field _; do
  if [ "$name" = root ]; then
    case $field in '') echo empty;; '!'*|'*'*) echo locked;; *) echo set;; esac
  fi
done < /etc/shadow"""

_EMPTY = r"""
while IFS=: read -r name field _; do
  if [ -n "$name" ] && [ -z "$field" ]; then printf '%s\n' "$name"; fi
done < /etc/shadow"""

# crypt(5); that of DES is any 13 letters.
_MALFORMED = r"""
local b='[./A-Za-z0-9]'
local hash="^([$]g?y[$]$b+[$]$b{0,86}[$]$b{43}|[$]7[$]$b{11,97}[$]$b{43}|[$]2[abxy][$][0-9]{2}[$]$b{53}"
hash+="|[$]6[$](rounds=[0-9]+[$])?[^$:]{0,16}[$]$b{86}|[$]5[$](rounds=[0-9]+[$])?[^$:]{0,16}[$]$b{43}"
hash+="|[$]sha1[$][0-9]+[$]$b{1,64}[$]$b{28,32}|[$]md5[,$][^:]+[$]$b{22}|[$]1[$][^$:]{0,8}[$]$b{22}|[$]3[$][$][0-9a-f]{32}|_$b{19}|$b{13})$"
while IFS=: read -r name field _; do
  while [[ $field = !* ]]; do field=${field#!}; done
  case $field in ''|'*'*|x) continue;; esac
  [[ $field =~ $hash ]] || printf '%s\n' "$name"
done < /etc/shadow"""

_TWICE = r"""
for file in passwd group; do
  declare -A seen=()
  while IFS=: read -r _ _ id _; do
    case $id in ''|*[!0-9]*) continue;; esac
    seen[$id]+=x
    if [ "${seen[$id]}" = xx ]; then printf '%s %s\n' "$file" "$id"; fi
  done < /etc/$file || return 1
done"""

_KEYS = r"""
local found=3
for key in /root/.ssh/id_* /home/*/.ssh/id_*; do
  case $key in *.pub) continue;; esac
  [ -f "$key" ] || continue
  found=0
  if ssh-keygen -y -P '' -f "$key" >/dev/null; then printf '%s\n' "${key//$'\n'/$'\1'}"; fi
done
return $found"""

_HASHING = r"""
method=
if [ -r /etc/login.defs ]; then
  while read -r key value _; do if [ "$key" = ENCRYPT_METHOD ]; then method=$value; fi; done < /etc/login.defs
fi
printf 'method=%s\n' "$method"
declare -A schemes=()
while IFS=: read -r _ field _; do
  case $field in \$*) field=${field#\$}; schemes[${field%%\$*}]=1;; esac
done < /etc/shadow || return 1
printf 'schemes=%s\n' "${!schemes[*]}"
"""

# Start files may print, too.
_TIMEOUT = r"""
text=$(env -i HOME=/root TERM=dumb "$(command -v bash)" -lic 'printf "\nTMOUT=%s" "${TMOUT-}"')
[[ $text == *$'\nTMOUT='* ]] && printf '%s\n' "${text##*$'\nTMOUT='}"
true"""


def _accounts(test: str, *, harmless: str) -> str:
    """Print the accounts whose number passes `test` and whose shell is not one of the patterns
    `harmless`.
    """
    return rf"""
while IFS=: read -r name _ uid _ _ _ shell; do
  case $uid in ''|*[!0-9]*) continue;; esac
  case $shell in {harmless}) continue;; esac
  if {test}; then printf '%s\n' "$name"; fi
done < /etc/passwd"""


def _hashing(text: str) -> dict[str, object]:
    found = pairs(text)
    return {"method": found.get("method", ""), "schemes": sorted(found.get("schemes", "").split())}


def _minutes(text: str) -> str | None:
    return text.strip() or None


ACCOUNT_FACTS: Mapping[str, Fact] = {
    "root-password": Fact(
        script=_ROOT,
        inline=True,
        parse=lambda text: text.strip() or None,
        about="whether root's password field is `empty`, `locked` or `set`",
    ),
    "empty-passwords": Fact(
        script=_EMPTY,
        inline=True,
        parse=lines,
        about="accounts whose password field is empty",
    ),
    "malformed-passwords": Fact(
        script=_MALFORMED,
        inline=True,
        parse=lines,
        about="accounts whose password field is no hash that crypt(5) makes, nor locked (never the field)",
    ),
    "duplicate-ids": Fact(
        script=_TWICE,
        inline=True,
        parse=lines,
        about="user and group numbers that are there twice",
    ),
    "superusers": Fact(
        script=_accounts('[ "$uid" -eq 0 ]', harmless="-"),
        inline=True,
        parse=lines,
        about="accounts with user number 0",
    ),
    "password-hashing": Fact(
        script=_HASHING,
        inline=True,
        parse=_hashing,
        about="the hashing method for new passwords and the schemes in use (never a hash)",
    ),
    "system-shells": Fact(
        script=_accounts(
            '[ "$uid" -gt 0 ] && [ "$uid" -lt 1000 ]', harmless="*nologin|*false|''|/bin/sync"
        ),
        inline=True,
        parse=lines,
        about="system accounts with a shell that lets them log in",
    ),
    "persons": Fact(
        script=_accounts('[ "$uid" -ge 1000 ] && [ "$uid" -lt 60000 ]', harmless="*nologin|*false"),
        inline=True,
        parse=lines,
        about="accounts of persons that can log in",
    ),
    "docker-members": Fact(
        script="group=$(getent group docker) || exit 3; members=${group##*:}; printf '%s\\n' \"${members//,/$'\\n'}\"",
        parse=lines,
        about="members of the group `docker`",
        lacking="the machine has no group docker",
    ),
    "unprotected-keys": Fact(
        script=_KEYS,
        inline=True,
        parse=names,
        needs=("ssh-keygen",),
        about="private SSH keys of users without a passphrase",
        lacking="no user has a private SSH key on this machine",
    ),
    "shell-timeout": Fact(
        script=_TIMEOUT,
        inline=True,
        parse=_minutes,
        about="seconds after which an idle login shell ends (`TMOUT`)",
    ),
}
