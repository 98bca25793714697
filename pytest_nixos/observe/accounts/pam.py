"""PAM: what each service's stack makes of a password, with what it includes from others.

pam.d(5), pam_unix(8), pam_faillock(8), pam_faildelay(8). A service is one file of ``/etc/pam.d``;
what is true of ``login`` says nothing of ``su`` or of a screen locker.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping

import msgspec

from pytest_nixos.observe.base import Probe, ProbeOutput
from pytest_nixos.observe.text import pairs, split_lines

__all__ = ["PamRule", "PamService", "pam"]

_MAX_BYTES = 65536
# Builtins only: every program costs a VM 10 ms and more, and there are some twenty-five files.
_READ = rf"""
show() {{ local text; text=$(<"$1") && printf '%s\n' "${{text:0:{_MAX_BYTES}}}"; }}
for file in /etc/pam.d/*; do
  [ -f "$file" ] || continue
  title service "${{file##*/}}"
  show "$file"
done
title faillock; [ -r /etc/security/faillock.conf ] && show /etc/security/faillock.conf
title pwquality
for file in /etc/security/pwquality.conf.d/*.conf /etc/security/pwquality.conf; do [ -r "$file" ] && show "$file"; done
title login-defs; [ -r /etc/login.defs ] && show /etc/login.defs
title complete
true
"""
_RULE = re.compile(r"-?(auth|account|password|session)\s+(\[[^\]]*\]|\S+)\s+(\S+)\s*(.*)")
_INCLUDE = re.compile(r"@include\s+(\S+)")
#: An include that includes itself ends here; Linux-PAM's own limit is 32 substacks.
_MOST_NESTED = 16
_ASK = re.compile(r"pam_(unix\d?|sss|ldap|krb5|winbind|pwdfile|userdb)\.so")
#: Their programs are root's, or ask only for the password of the account that starts them.
_OF_THE_ACCOUNT = re.compile(
    r"other|systemd-user|runuser(-l)?|ch(fn|sh|passwd|gpasswd|age)|passwd|newusers|"
    r"(user|group)(add|del|mod|mems)|vigr|vipw|cron|crond|atd"
)
#: pam_unix(8): without nodelay a wrong password takes two seconds.
_UNIX_DELAY_S = 2.0
#: pam_faillock(8), what counts where nothing is said.
_FAILLOCK = {"deny": 3, "fail_interval": 900}


class PamRule(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a stack.

    :param file: name of the service whose file holds it.
    """

    management: str
    control: str
    module: str
    arguments: tuple[str, ...]
    file: str
    text: str

    @property
    def asks(self) -> bool:
        """Whether it compares a password."""
        return _ASK.fullmatch(self.module.rpartition("/")[2]) is not None

    def is_module(self, name: str) -> bool:
        """Whether it calls the module `name`, such as ``pam_wheel``."""
        return self.module.rpartition("/")[2] == f"{name}.so"

    @property
    def binds(self) -> bool:
        """Whether the service fails where this rule does."""
        return self.control in ("required", "requisite") or "default=die" in self.control


class PamService(msgspec.Struct, frozen=True, kw_only=True):
    """One service.

    :param auth: its rules of authentication, those that it includes in their places.
    :param password: its rules about a new password, likewise.
    :param pwquality_conf: what ``/etc/security/pwquality.conf`` says, and the folder beside it.
    :param faillock_conf: what ``/etc/security/faillock.conf`` says.
    :param fail_delay_s: FAIL_DELAY of ``/etc/login.defs``, ``None`` where it is not set.
    """

    name: str
    auth: tuple[PamRule, ...]
    password: tuple[PamRule, ...]
    pwquality_conf: Mapping[str, str]
    faillock_conf: Mapping[str, str]
    fail_delay_s: float | None

    @property
    def asks_strangers(self) -> bool:
        """Whether somebody who is not the account's owner can guess its password here."""
        return not _OF_THE_ACCOUNT.fullmatch(self.name) and any(rule.asks for rule in self.auth)

    @property
    def accepts_nothing(self) -> str | None:
        """Return the rule of its own file that lets an account without a password in."""
        own = (rule for rule in self.auth if rule.file == self.name and rule.asks)
        found = (r.text for r in own if {"nullok", "nullok_secure"} & set(r.arguments))
        return next(found, None)

    @property
    def faillock(self) -> Mapping[str, object]:
        """Return how failures are counted: whether it is asked for before the password and told
        after it, how many lock the account, and the seconds in which they count together.
        """
        first = next((n for n, rule in enumerate(self.auth) if rule.asks), len(self.auth))
        calls = [(n, r) for n, r in enumerate(self.auth) if r.is_module("pam_faillock")]
        before = any(n < first and "preauth" in r.arguments for n, r in calls)
        after = any(n > first and "authfail" in r.arguments for n, r in calls)
        said: dict[str, str] = dict(self.faillock_conf)
        for _, rule in calls:
            said |= pairs("\n".join(rule.arguments))
        limits = {
            key: int(said[key]) if said.get(key, "").isdecimal() else default
            for key, default in _FAILLOCK.items()
        }
        return {"preauth": before, "authfail": after, **limits}

    @property
    def delay_s(self) -> float:
        """Return the seconds that a wrong password takes: the longest that a module asks for."""
        delays = [0.0]
        for rule in self.auth:
            if rule.is_module("pam_faildelay"):
                said = pairs("\n".join(rule.arguments)).get("delay", "")
                delays.append(int(said) / 1e6 if said.isdecimal() else self.fail_delay_s or 0.0)
            elif rule.is_module("pam_unix") and "nodelay" not in rule.arguments:
                delays.append(_UNIX_DELAY_S)
        if self.name in ("login", "su") and self.fail_delay_s is not None:
            delays.append(self.fail_delay_s)
        return max(delays)

    @property
    def password_quality(self) -> Mapping[str, str]:
        """Return what a new password is held against before it is set; empty where nothing asks
        pam_pwquality, whatever its file says.
        """
        for rule in self.password:
            if rule.is_module("pam_pwquality") and rule.binds:
                own = pairs("\n".join(rule.arguments))
                return {**self.pwquality_conf, **own}
            if rule.asks and rule.control in ("sufficient", "binding"):
                break
        return {}

    @property
    def wants_wheel(self) -> bool:
        """Whether only members of wheel get past it with a password."""
        for rule in self.auth:
            if rule.is_module("pam_wheel") and rule.binds and "deny" not in rule.arguments:
                return True
            if rule.asks and rule.control in ("sufficient", "binding"):
                return False
        return False


def pam(*, name: str = "pam") -> Probe[Mapping[str, PamService] | None]:
    """Ask for the authentication stack of every service; ``None`` where the answer is cut short."""
    return Probe(name=name, script=_READ, parse=_parse)


def _parse(output: ProbeOutput) -> Mapping[str, PamService] | None:
    records = dict(output.records)
    if "complete" not in records:
        return None
    files = {
        title.removeprefix("service "): tuple(_lines(text))
        for title, text in records.items()
        if title.startswith("service ")
    }
    faillock = _settings(records.get("faillock", ""))
    delay = re.search(r"^\s*FAIL_DELAY\s+(\d{1,6})\b", records.get("login-defs", ""), re.MULTILINE)
    return {
        name: PamService(
            name=name,
            auth=tuple(_stack("auth", name, files, _MOST_NESTED)),
            password=tuple(_stack("password", name, files, _MOST_NESTED)),
            pwquality_conf=_settings(records.get("pwquality", "")),
            faillock_conf=faillock,
            fail_delay_s=float(delay[1]) if delay else None,
        )
        for name in sorted(files)
    }


def _settings(text: str) -> Mapping[str, str]:
    return pairs("\n".join(line for line in text.split("\n") if not line.lstrip().startswith("#")))


def _lines(text: str) -> Iterator[str]:
    """Yield the lines that say something; a backslash at a line's end joins it with the next."""
    for line in split_lines(text.replace("\\\n", " ")):
        if said := line.partition("#")[0].strip():
            yield said


def _stack(
    management: str, name: str, files: Mapping[str, tuple[str, ...]], depth: int
) -> Iterator[PamRule]:
    if depth == 0:
        return
    for line in files.get(name.rpartition("/")[2], ()):
        if (included := _INCLUDE.fullmatch(line)) is not None:
            yield from _stack(management, included[1], files, depth - 1)
        elif (match := _RULE.fullmatch(line)) is not None and match[1] == management:
            if match[2] in ("include", "substack"):
                yield from _stack(management, match[3], files, depth - 1)
            else:
                yield PamRule(
                    management=match[1],
                    control=match[2],
                    module=match[3],
                    arguments=tuple(_words(match[4])),
                    file=name.rpartition("/")[2],
                    text=line,
                )


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()
