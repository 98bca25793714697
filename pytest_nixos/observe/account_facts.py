"""Users, groups and passwords of a machine, never a password's hash."""

from __future__ import annotations

from collections.abc import Mapping

from pytest_nixos.observe.fact import Fact, lines, pairs

__all__ = ["ACCOUNT_FACTS"]

# awk prints what kind of password field it is, so that no hash ever leaves the guest.
_STATE = r"""awk -F: -v want="$user" '$1 == want {
  f = $2; if (f == "") s = "empty"; else if (f ~ /^[!*]/) s = "locked"; else s = "set"; print s }' /etc/shadow"""

_KEYS = r"""
found=3
for key in /root/.ssh/id_* /home/*/.ssh/id_*; do
  case $key in *.pub) continue;; esac
  [ -f "$key" ] || continue
  found=0
  if ssh-keygen -y -P '' -f "$key" >/dev/null; then printf '%s\n' "$key"; fi
done
exit $found"""

_HASHING = r"""
printf 'method=%s\n' "$(awk '$1 == "ENCRYPT_METHOD" { print $2 }' /etc/login.defs)"
printf 'schemes=%s\n' "$(awk -F: '$2 ~ /^\$/ { split($2, part, "$"); print part[2] }' /etc/shadow | sort -u | tr '\n' ' ')"
"""

_SHELLS = r"""awk -F: '$3 > 0 && $3 < 1000 && $7 !~ /(nologin|false)$/ && $7 != "" && $7 != "/bin/sync" { print $1 }' /etc/passwd"""

_PERSONS = (
    r"""awk -F: '$3 >= 1000 && $3 < 60000 && $7 !~ /(nologin|false)$/ { print $1 }' /etc/passwd"""
)


def _hashing(text: str) -> dict[str, object]:
    found = pairs(text)
    return {"method": found.get("method", ""), "schemes": found.get("schemes", "").split()}


def _minutes(text: str) -> str | None:
    return text.strip() or None


ACCOUNT_FACTS: Mapping[str, Fact] = {
    "root-password": Fact(
        script=f"user=root; {_STATE}",
        parse=lambda text: text.strip() or None,
        about="whether root's password field is `empty`, `locked` or `set`",
    ),
    "empty-passwords": Fact(
        script="""awk -F: '$2 == "" { print $1 }' /etc/shadow""",
        parse=lines,
        about="accounts whose password field is empty",
    ),
    "duplicate-ids": Fact(
        script='for f in passwd group; do cut -d: -f3 /etc/$f | sort | uniq -d | sed "s|^|$f |"; done',
        parse=lines,
        needs=("cut", "sort", "uniq"),
        about="user and group numbers that are there twice",
    ),
    "superusers": Fact(
        script="awk -F: '$3 == 0 { print $1 }' /etc/passwd",
        parse=lines,
        about="accounts with user number 0",
    ),
    "password-hashing": Fact(
        script=_HASHING,
        parse=_hashing,
        about="the hashing method for new passwords and the schemes in use (never a hash)",
    ),
    "system-shells": Fact(
        script=_SHELLS,
        parse=lines,
        about="system accounts with a shell that lets them log in",
    ),
    "persons": Fact(
        script=_PERSONS,
        parse=lines,
        about="accounts of persons that can log in",
    ),
    "docker-members": Fact(
        script="getent group docker >/dev/null || exit 3; getent group docker | cut -d: -f4 | tr ',' '\\n'",
        parse=lines,
        about="members of the group `docker`",
        lacking="the machine has no group docker",
    ),
    "unprotected-keys": Fact(
        script=_KEYS,
        parse=lines,
        needs=("ssh-keygen",),
        about="private SSH keys of users without a passphrase",
        lacking="no user has a private SSH key on this machine",
    ),
    "shell-timeout": Fact(
        script='env -i HOME=/root TERM=dumb bash -lic \'printf "%s\\n" "${TMOUT-}"\' | tail -n 1',
        parse=_minutes,
        about="seconds after which an idle login shell ends (`TMOUT`)",
    ),
}
