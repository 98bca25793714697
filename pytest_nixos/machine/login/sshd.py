"""The sshd of a guest, whichever unit runs it, and what it has in force for somebody."""

from __future__ import annotations

from typing import Self

import msgspec

__all__ = ["DECLARED_KEYS", "FIND_SSHD", "InForce"]

#: Where NixOS puts declared keys (nixos/modules/services/networking/ssh/sshd.nix).
DECLARED_KEYS = "/etc/ssh/authorized_keys.d/"

#: Bash text that finds sshd and its configuration and defines ``ask USER ADDRESS [HOST]``, which
#: prints what is in force for them. The running sshd names its configuration; with socket activation
#: no sshd runs, so the unit tells instead. Options on its command line count, as they beat the file. A socket-activated
#: sshd has no host keys before the first connection, and ``-T`` alone says nothing then; ``-G`` came with OpenSSH 9.3.
FIND_SSHD = r"""
pid=0 starts=()
while IFS= read -r line; do
  case $line in MainPID=*) pid=${line#*=};; ExecStart=*) starts+=("${line#*=}");; esac
done < <(systemctl show --property=MainPID,ExecStart sshd.service)
program=$(command -v sshd)
for start in "${starts[@]}"; do
  [[ -z $program && $start =~ (/nix/store/[^ \;]*/bin/sshd) ]] && program=${BASH_REMATCH[1]}
done
[ -n "$program" ] || program=$(readlink -f "/proc/$pid/exe")
[ -x "$program" ] || exit 3
config=/etc/ssh/sshd_config options=()
for start in "${starts[@]}"; do
  [[ $start =~ .*argv\[\]=([^\;]*)\ \; ]] && read -ra words <<< "${BASH_REMATCH[1]}" && break
done
for ((i = 1; i < ${#words[@]}; i++)); do
  case ${words[i]} in
    -o) options+=(-o "${words[++i]}") ;;
    -o?*) options+=("${words[i]}") ;;
    -f) config=${words[++i]} ;;
  esac
done
[ -e "$config" ] || exit 3
ask() {
  local how=(-f "$config" "${options[@]}" -C "user=$1,host=${3:-localhost},addr=$2")
  "$program" -T "${how[@]}" || "$program" -G -T "${how[@]}"
}
"""
# sshd_config(5), "AuthorizedKeysFile": what is there without a setting.
_DEFAULT_FILES = ".ssh/authorized_keys .ssh/authorized_keys2"


class InForce(msgspec.Struct, frozen=True, kw_only=True):
    """What sshd has in force for one user from one address.

    :param key_files: files whose keys it accepts for them, absolute.
    :param port: the first that it listens on.
    :param key_types: signature algorithms that it accepts of their keys, in its order.
    :param methods: what a login takes: alternatives, each a list of methods that are all needed.
    :param accepts_keys: whether it accepts keys at all.
    """

    key_files: tuple[str, ...]
    port: int
    key_types: tuple[str, ...]
    methods: tuple[tuple[str, ...], ...]
    accepts_keys: bool

    @property
    def reads_declared_keys(self) -> bool:
        """Whether the file of the keys that the host declares is one of them."""
        return any(file.startswith(DECLARED_KEYS) for file in self.key_files)

    @property
    def key_is_enough(self) -> bool:
        """Whether a login takes nothing but a key."""
        return self.accepts_keys and (
            not self.methods or any(set(way) == {"publickey"} for way in self.methods)
        )

    @classmethod
    def parse(cls, text: str, *, user: str, uid: str, home: str) -> Self:
        """Read what ``sshd -T -C user=...`` prints.

        :param uid: the user's number.
        :param home: the user's home directory, what ``%h`` and relative names mean.
        """
        lines = [line.partition(" ")[::2] for line in text.splitlines()]
        said: dict[str, str] = {}
        for key, value in lines:
            said.setdefault(key.lower(), value.strip())
        files = said.get("authorizedkeysfile", _DEFAULT_FILES).split()
        ways = said.get("authenticationmethods", "any").split()
        return cls(
            key_files=tuple(
                _meant(file, user=user, uid=uid, home=home) for file in files if file != "none"
            ),
            port=int(said.get("port", "22")),
            key_types=tuple(said.get("pubkeyacceptedalgorithms", "ssh-ed25519").split(",")),
            methods=tuple(
                tuple(method.partition(":")[0] for method in way.split(","))
                for way in ways
                if way != "any"
            ),
            accepts_keys=said.get("pubkeyauthentication", "yes") == "yes",
        )


def _meant(file: str, *, user: str, uid: str, home: str) -> str:
    """Return a file's name with its tokens filled in, sshd_config(5), "TOKENS"."""
    values = {"%": "%", "h": home, "u": user, "U": uid}
    filled, rest = "", file
    while rest:
        before, found, rest = rest.partition("%")
        filled += before + (values.get(rest[:1], "") if found else "")
        rest = rest[1:] if found else ""
    return filled if filled.startswith("/") else f"{home}/{filled}"
