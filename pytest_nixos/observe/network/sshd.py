"""The settings that are in force in sshd."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytest_nixos.machine.login.sshd import FIND_SSHD
from pytest_nixos.observe.fact import Fact

__all__ = ["CASES", "SSHD_FACTS", "parse_sshd"]

Json = Any

#: The key under which :func:`parse_sshd` keeps what other users and addresses get.
CASES = "=cases"

_SSHD = (
    FIND_SSHD
    + r"""
ask root 127.0.0.1 || exit

# Without a Match block everybody gets the same. The words may also stand in a comment or in quotes.
text=$(<"$config") text=${text,,}
[[ $text == *match* || $text == *include* ]] || exit 0
# Who else gets other settings: each user who may log in, from elsewhere, and whoever a Match block names.
mapfile -n 8 -t users < <(while IFS=: read -r name _ uid _ _ _ shell; do
  ((uid == 0 || uid >= 1000)) && [[ $shell != */nologin && $shell != */false ]] && printf '%s\n' "$name"
done <<< "$(getent passwd)")
declare -A asked=()
case_of() {
  local key="user=$1 addr=$2${3:+ host=$3}"
  [[ -n $1 && -n $2 && -z ${asked[$key]-} ]] && ((${#asked[@]} < 40)) || return 0
  asked[$key]=1
  printf '=case %s\n' "$key"
  ask "$1" "$2" "${3-}"
}
for user in "${users[@]}"; do case_of "$user" 192.0.2.1; done
while read -ra words; do
  [[ ${words[0],,} == match ]] || continue
  names=() places=() hosts=('')
  for ((i = 1; i + 1 < ${#words[@]}; i += 2)); do
    IFS=, read -ra values <<< "${words[i + 1]//\"/}"
    for value in "${values[@]}"; do
      [[ $value == '!'* ]] && continue
      case ${words[i],,} in
        user) [[ $value == *[*?]* ]] || names+=("$value") ;;
        group) IFS=: read -r _ _ gid members < <(getent group "$value")
          IFS=, read -ra more <<< "$members"
          names+=("${more[@]:0:3}")
          mapfile -t -O "${#names[@]}" names < <(getent passwd | while IFS=: read -r name _ _ primary _; do
            [[ -n $gid && $primary == "$gid" ]] && printf '%s\n' "$name"; done | head -n 3) ;;
        address) value=${value%/*}
          [[ $value == *[*?]* ]] && value=${value//[*?]/7}
          places+=("$value") ;;
        host) [[ $value == *[*?]* ]] && value=${value//[*?]/x}
          hosts+=("$value") ;;
      esac
    done
  done
  ((${#names[@]})) || names=("${users[@]}")
  ((${#places[@]})) || places=(127.0.0.1 192.0.2.1)
  for name in "${names[@]}"; do for place in "${places[@]}"; do for host in "${hosts[@]}"; do
    case_of "$name" "$place" "$host"
  done; done; done
done < "$config"
true
"""
)

_LISTS = frozenset(
    {"ciphers", "macs", "kexalgorithms", "hostkeyalgorithms", "pubkeyacceptedalgorithms"}
)
_REPEATED = frozenset(
    {"allowusers", "allowgroups", "denyusers", "denygroups", "hostkey", "listenaddress", "port"}
    | {"acceptenv"}
)


def parse_sshd(text: str) -> dict[str, Json]:
    """Read the output of ``sshd -T``: lower-case key to text, or to a list where the key holds
    one.

    What root gets from the machine itself stands at the top. Under :data:`CASES` stands what other
    users and addresses get, as far as it differs: case to settings.
    """
    first, *others = f"\n{text}".split("\n=case ")
    settings = _settings(first)
    cases: dict[str, dict[str, Json]] = {}
    for block in others:
        name, _, body = block.partition("\n")
        got = _settings(body)
        differing = {
            key: got.get(key) for key in {*settings, *got} if got.get(key) != settings.get(key)
        }
        if got and differing:
            cases[name] = differing
    return {**settings, CASES: cases} if cases else settings


def _settings(text: str) -> dict[str, Json]:
    settings: dict[str, Json] = {}
    for line in text.split("\n"):
        key, _, value = line.partition(" ")
        key = key.lower()
        if key in _LISTS:
            settings[key] = value.split(",")
        elif key in _REPEATED:
            settings[key] = [*settings.get(key, []), *value.split()]
        elif key and key not in settings:
            settings[key] = value
    return settings


SSHD_FACTS: Mapping[str, Fact] = {
    "settings": Fact(
        script=_SSHD,
        parse=parse_sshd,
        about="every setting in force, as `sshd -T` prints it, and what other users and addresses get",
        lacking="the machine has no sshd",
    ),
}
