"""Lines of their own configuration that services say they do without, while they start and run."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

__all__ = ["OF_SERVICES", "OPTIONS_OF_SERVICES", "refused_by_services"]

# What each says, by what its file is called. The words stand in ngx_http.c of nginx, postconf_unused.c of
# Postfix, loadparm.c of Samba, parser.c of keepalived, rsconf.c of rsyslog, pam_handlers.c of libpam and
# server/transmitter.py of Fail2ban.
_SAID = {
    "nginx.conf": re.compile(
        r"(?P<text>conflicting server name \"[^\"]*\" on \S+), ignored(?P<line>)"
    ),
    "main.cf": re.compile(
        r"warning: /etc/postfix/\S+: (?P<text>unused parameter: [\w-]+)(?P<line>)"
    ),
    "smb.conf": re.compile(r"Ignoring (?P<text>unknown parameter \"[^\"]*\")(?P<line>)"),
    "keepalived.conf": re.compile(
        r"\(/\S+\.conf: Line (?P<line>\d+)\) (?P<text>Unknown keyword '[^']*')"
    ),
    "rsyslog.conf": re.compile(
        r"error during parsing file /\S+, on or before line (?P<line>\d+): (?P<text>.*)"
    ),
    "jail.local": re.compile(
        r"(?P<text>Jail '[^']*' skipped, because of wrong configuration: .*)(?P<line>)"
    ),
    "pam.d": re.compile(r"PAM adding (?P<text>faulty module: \S+)(?P<line>)"),
}
#: What journalctl looks for.
OF_SERVICES = (
    "conflicting server name|unused parameter: |Ignoring unknown parameter|Unknown keyword '"
    "|error during parsing file|PAM adding faulty module|skipped, because of wrong configuration"
)
#: The option that writes each.
OPTIONS_OF_SERVICES = {
    "nginx.conf": "services.nginx.virtualHosts",
    "main.cf": "services.postfix",
    "smb.conf": "services.samba",
    "keepalived.conf": "services.keepalived",
    "rsyslog.conf": "services.rsyslogd",
    "jail.local": "services.fail2ban.jails",
    "pam.d": "security.pam.services",
}


def refused_by_services(said: Iterable[str]) -> Iterator[tuple[str, int, str]]:
    """Give each line that a service does without, once.

    :param said: messages of the journal.
    :return: name of the file, line from 1 (0 where nobody tells), and words.
    """
    found: dict[tuple[str, int, str], None] = {}
    for message in said:
        for name, words in _SAID.items():
            if match := words.search(message):
                found[name, int(match["line"] or 0), match["text"].strip()] = None
    yield from found
