"""Lines of configuration that a program of systemd refused while it started: rules of tmpfiles,
settings of logind, resolved, timesyncd, networkd, journald and of systemd itself; and addresses that the
C library passes over; lines of an ``EnvironmentFile=`` that assign nothing; and what some services say of
their own configuration.

Such a program says so, goes on without the line, and succeeds. Lines of unit files are told by
:func:`pytest_nixos.observe.systemd.unit_file.verify_units`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pytest_nixos.observe.address_line import unread_hosts, unread_servers
from pytest_nixos.observe.base import Probe, ProbeOutput
from pytest_nixos.observe.cron_line import unread_jobs
from pytest_nixos.observe.systemd.journald_line import refused_by_journald
from pytest_nixos.observe.systemd.networkd_line import refused_by_networkd
from pytest_nixos.observe.systemd.service_line import (
    OF_SERVICES,
    OPTIONS_OF_SERVICES,
    refused_by_services,
)
from pytest_nixos.observe.systemd.udev_line import UDEV_RULES, refused_by_udev
from pytest_nixos.observe.systemd.undone_line import lost_variables, undone_lines
from pytest_nixos.observe.systemd.unknown_parameter import (
    COMMAND_LINE,
    OF_PARAMETERS,
    unknown_commands,
    unknown_parameters,
)
from pytest_nixos.observe.text import read_json, whole

__all__ = ["RefusedLine", "RefusedLines", "refused_lines", "refused_on_console"]

# SD_MESSAGE_INVALID_CONFIGURATION of systemd's sd-messages.h; log_syntax() adds file and line.
_ID = "c772d24e9a884cbeb9ea12625c306c01"
_MOST = 500
_FIELDS = "MESSAGE,CONFIG_FILE,CONFIG_LINE,PRIORITY"
# Notices tell what was done all the same: a path below /var/run, the same line twice.
_WARNING = 4
# What starts before the journal writes to the kernel's log, or to the console of a container.
_SPOKEN = re.compile(r"(?P<file>/etc/systemd/[^\s:]+\.conf):(?P<line>\d+): (?P<text>\S.*)")
_JOURNALD = "/etc/systemd/journald.conf"
_CRONTAB = "/etc/crontab"
_OF_NETWORKD = {"network": "networks", "netdev": "netdevs", "link": "links"}
_FOLDERS = {
    "/etc/modprobe.d": "boot.extraModprobeConfig",
    "/etc/modules-load.d": "boot.kernelModules",
    "/etc/tmpfiles.d": "systemd.tmpfiles",
}
_OPTIONS = {
    COMMAND_LINE: "boot.kernelParams",
    UDEV_RULES: "services.udev.extraRules",
    "/etc/crontab": "services.cron.systemCronJobs",
    "/etc/hosts": "networking (hosts, extraHosts)",
    "/etc/resolv.conf": "networking.nameservers",
    "/etc/systemd/journald.conf": "services.journald",
    "/etc/systemd/logind.conf": "services.logind",
    "/etc/systemd/networkd.conf": "systemd.network.config",
    "/etc/systemd/oomd.conf": "systemd.oomd",
    "/etc/systemd/resolved.conf": "services.resolved",
    "/etc/systemd/system.conf": "systemd (extraConfig, settings.Manager)",
    "/etc/systemd/timesyncd.conf": "services.timesyncd",
    "/etc/systemd/user.conf": "systemd.user",
    **OPTIONS_OF_SERVICES,
}
# Who does without a line of these says so to nobody, or to nobody who hears it.
_UNSAID: Mapping[str, Callable[[str], Iterator[tuple[int, str]]]] = {
    _JOURNALD: refused_by_journald,
    _CRONTAB: unread_jobs,
    "/etc/hosts": unread_hosts,
    "/etc/resolv.conf": unread_servers,
}
_UNIT_FILE = re.compile(
    r"\.(service|socket|target|timer|path|mount|automount|swap|slice|scope|device)(\.d/[^/]+)?$"
)
# What the kernel's log tells: what systemd said before there was a journal, and of parameters.
_KERNEL = "|".join((" /etc/systemd/.*:[0-9]+: ", *OF_PARAMETERS))
# Who says in words alone what of these files it could not do. One program for all, since each costs an emulated
# guest a tenth of a second.
_SPEAKERS = " ".join(
    f"--identifier=systemd-{name}" for name in ("modules-load", "tmpfiles", "networkd", "udevd")
)
_READ_BY_THEM = (
    "/etc/modules-load.d/*.conf /etc/tmpfiles.d/*.conf /etc/modprobe.d/*.conf"
    " /etc/systemd/network/*.network /etc/systemd/network/*.netdev"
)
_READ = f"""
set -o pipefail
title journal
journalctl --boot --no-pager --quiet --output=json --output-fields={_FIELDS} --lines={_MOST} MESSAGE_ID={_ID} || (( $? == 1 )) || exit 3
title kernel
journalctl --boot --dmesg --no-pager --quiet --output=cat --grep="{_KERNEL}" --lines={_MOST}
for file in {_JOURNALD} {_CRONTAB} /etc/hosts /etc/resolv.conf; do
  [ -r "$file" ] && title "$file" && head -c 65536 "$file"
done
title said
journalctl --boot --no-pager --quiet --output=cat --lines=2000 {_SPEAKERS}
title variables
journalctl --boot --no-pager --quiet --output=cat --lines={_MOST} --grep="invalid environment assignment|{OF_SERVICES}"
title lines
grep -Hns '^[^#;]' {_READ_BY_THEM}
true
"""


@dataclass(frozen=True, slots=True, order=True)
class RefusedLine:
    """One line.

    :param file: its path.
    :param line: its number, from 1; 0 where nobody tells.
    :param text: what the program said, without the place.
    :param unit: the service that reads the file, ``""`` for what lies below ``/etc``.
    """

    file: str
    line: int
    text: str
    unit: str = ""

    @property
    def option(self) -> str:
        """The option that writes or names the file, ``""`` where that is not known."""
        if self.unit:
            return f'systemd.services."{self.unit.removesuffix(".service")}".serviceConfig.EnvironmentFile'
        folder, _, name = self.file.rpartition("/")
        stem, _, suffix = name.rpartition(".")
        if folder == "/etc/systemd/network" and suffix in _OF_NETWORKD:
            return f'systemd.network.{_OF_NETWORKD[suffix]}."{stem}"'
        return _OPTIONS.get(self.file, _FOLDERS.get(folder, ""))

    def is_of(self, kernel_params: Iterable[str]) -> bool:
        """Whether the host declares it: not a parameter of the kernel that only its machine has."""
        given = {param.partition("=")[0] for param in kernel_params}
        return self.file != COMMAND_LINE or self.text.split()[0].partition("=")[0] in given

    def __str__(self) -> str:
        return f"{self.file}{f':{self.line}' if self.line else ''}: {self.text}"


@dataclass(frozen=True, slots=True)
class RefusedLines:
    """What this boot's journal tells.

    :param answered: whether the journal could be read; nothing may be concluded if not.
    """

    answered: bool
    lines: tuple[RefusedLine, ...]


def refused_lines() -> Probe[RefusedLines]:
    """Ask which lines of files below ``/etc`` were refused since the boot."""
    return Probe(name="refused-lines", script=_READ, parse=_parse)


def refused_on_console(lines: Iterable[str]) -> tuple[RefusedLine, ...]:
    """Read what systemd and journald said before there was a journal."""
    found = (_SPOKEN.search(line) for line in lines)
    return tuple(
        RefusedLine(m["file"], int(m["line"]), m["text"].strip())
        for m in found
        if m is not None and not _UNIT_FILE.search(m["file"])
    )


def _parse(output: ProbeOutput) -> RefusedLines:
    parts = dict(output.records)
    told = [_entry(line) for line in parts.get("journal", "").split("\n")]
    told += refused_on_console(parts.get("kernel", "").split("\n"))
    said = {(line.file, line.line) for line in told if line is not None}
    told += [
        RefusedLine(file, number, words)
        for file, unread in _UNSAID.items()
        for number, words in unread(parts.get(file, ""))
        if (file, number) not in said
    ]
    in_words = parts.get("variables", "").split("\n")
    lost = lost_variables(in_words)
    told += [RefusedLine(file, 0, text, unit) for unit, file, text in lost]

    kernel, words, lines = (
        parts.get(title, "").split("\n") for title in ("kernel", "said", "lines")
    )
    passed_over = (
        *undone_lines(words, lines),
        *refused_by_networkd(words, lines),
        *refused_by_udev(words),
        *unknown_parameters(kernel, lines),
        *unknown_commands(lines),
        *refused_by_services(in_words),
    )
    told += [RefusedLine(*line) for line in passed_over]
    return RefusedLines(
        answered=output.exit_status == 0,
        lines=tuple(sorted({line for line in told if line is not None})),
    )


def _entry(line: str) -> RefusedLine | None:
    try:
        fields = read_json(line)
    except ValueError:
        return None
    return _refused(fields) if isinstance(fields, dict) else None


def _refused(fields: Mapping[str, Any]) -> RefusedLine | None:
    file, number = str(fields.get("CONFIG_FILE")), whole(str(fields.get("CONFIG_LINE")))
    priority = whole(str(fields.get("PRIORITY")))
    if not file.startswith("/etc/") or _UNIT_FILE.search(file) or number is None:
        return None
    if priority is not None and priority > _WARNING:
        return None
    place = f"{file}:{number}: "
    return RefusedLine(file, number, str(fields.get("MESSAGE")).removeprefix(place))
