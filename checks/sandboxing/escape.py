"""Escape attempts: a transient twin of a unit, with the same sandbox, tries what the sandbox
forbids.

The twin is the unit's own file with its drop-ins, as ``systemctl cat`` prints them, so that what
weakens the unit at run time weakens the twin too. Only what it executes and what it owns (state
directories, sockets, restarts) is replaced. Each attempt runs in a subshell: a system call filter
may kill it. All traces are removed. systemd loads a unit file that is new to it when the unit is
started, and forgets the unit once it has ended: nothing needs a reload, which takes an emulated
guest seconds.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from pytest_nixos import Machine, parse_boolean

__all__ = ["ATTEMPTS", "attempt", "forbidden"]

_DIRECTORY = "/run/pytest-nixos-escape"
_MARK = ".pytest-nixos-escape"
_LIMIT_S = 300.0

# What is tried, in bash; success means that the sandbox has a hole.
ATTEMPTS: Mapping[str, str] = {
    "write to /etc": f": > /etc/{_MARK} && {{ rm -f /etc/{_MARK}; true; }}",
    "write to /usr or /boot": f": > /usr/{_MARK} && rm -f /usr/{_MARK} || {{ : > /boot/{_MARK} && rm -f /boot/{_MARK}; }}",
    "write to /var": f": > /var/{_MARK} && {{ rm -f /var/{_MARK}; true; }}",
    "read the home directories": 'shopt -s nullglob dotglob; found=(/home/* /root/*); [ ${#found[@]} -gt 0 ] && [ -r "${found[0]}" ]',
    "set a kernel parameter": 'value=$(</proc/sys/kernel/panic) && echo "$value" > /proc/sys/kernel/panic',
    "mount a file system": "mount -t tmpfs none /mnt && umount /mnt || { mount -t tmpfs none /tmp && umount /tmp; }",
    "load a kernel module": "grep -qi '^CapEff.*[1-9a-f]' /proc/self/status && modprobe dummy && modprobe -r dummy",
    "open the kernel's memory": "exec 3< /dev/mem",
    "gain privileges by a setuid program": "! grep -q '^NoNewPrivs:.*1' /proc/self/status && [ $UID != 0 ] && [ -x /run/wrappers/bin/su ]",
}

# Directives whose declaration forbids an attempt, with the values that do.
_FORBIDS: Mapping[str, Mapping[str, Sequence[str]]] = {
    "write to /etc": {"ProtectSystem": ("full", "strict"), "DynamicUser": ("true",)},
    "write to /usr or /boot": {
        "ProtectSystem": ("true", "full", "strict"),
        "DynamicUser": ("true",),
    },
    "write to /var": {"ProtectSystem": ("strict",)},
    "read the home directories": {"ProtectHome": ("true", "tmpfs")},
    "set a kernel parameter": {"ProtectKernelTunables": ("true",)},
    "mount a file system": {"CapabilityBoundingSet": ("",)},
    "load a kernel module": {"ProtectKernelModules": ("true",)},
    "open the kernel's memory": {"PrivateDevices": ("true",)},
    "gain privileges by a setuid program": {"NoNewPrivileges": ("true",)},
}

_DROPPED = [
    "Exec",
    "StateDirectory",
    "CacheDirectory",
    "LogsDirectory",
    "RuntimeDirectory",
    "ConfigurationDirectory",
    "PIDFile",
    "BusName",
    "Sockets",
    "Restart",
    "Type",
    "NotifyAccess",
    "WatchdogSec",
    "Standard",
    "LoadCredential",
    "SetCredential",
    "ImportCredential",
    "TimeoutStart",
    "RemainAfterExit",
    "FileDescriptorStore",
    "SuccessExitStatus",
    "OnFailure",
]


def forbidden(declared: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Return the attempts that a unit's declaration forbids."""
    return [
        name
        for name, directives in _FORBIDS.items()
        if any(
            directive in declared and _spelling(declared[directive]) in values
            for directive, values in directives.items()
        )
    ]


def attempt(machine: Machine, units: Sequence[str]) -> dict[str, dict[str, bool]]:
    """Try everything from inside a twin of each unit's sandbox; the twins run side by side.

    :return: unit to attempt to whether it succeeded; a unit whose twin did not run at all is left
        out.
    """
    result = machine.run(_script(units), timeout_s=_LIMIT_S)
    said: dict[str, set[str]] = {}
    unit = ""
    for line in result.stdout_text.splitlines():
        if line.startswith("unit: "):
            unit = line.removeprefix("unit: ")
        else:
            said.setdefault(unit, set()).add(line)
    return {
        unit: {name: f"succeeded: {name}" in lines for name in ATTEMPTS}
        for unit, lines in said.items()
        if "started" in lines
    }


def _script(units: Sequence[str]) -> str:
    tries = "\n".join(
        f"( {body} ) >/dev/null 2>&1 && echo 'succeeded: {name}'" for name, body in ATTEMPTS.items()
    )
    path = "export PATH=/run/current-system/sw/bin:/run/wrappers/bin"
    return _SCRIPT.format(
        units=shlex.join(units),
        program=shlex.quote(f"{path}\necho started\n{tries}\necho ended\n"),
        dropped="|".join(_DROPPED),
        directory=_DIRECTORY,
    )


_SCRIPT = r"""
set -u
directory={directory}
mkdir -p $directory
printf '%s' {program} > $directory/program
chmod 0755 $directory $directory/program
twins=()
for unit in {units}; do
  twin=pytest-nixos-escape-$unit
  twins+=("$twin")
  : > "$directory/$twin.out"
  {{
    echo '[Service]'
    systemctl cat --no-pager "$unit" | awk '
      /^\[/ {{ section = $0 }}
      section == "[Service]" && !/^\[/ && !/^({dropped})[A-Za-z]*=/ && /^[A-Z]/ {{ print }}
    '
    echo Type=oneshot
    echo "ExecStart=/run/current-system/sw/bin/bash $directory/program"
    echo "StandardOutput=append:$directory/$twin.out"
    echo StandardError=null
    echo TimeoutStartSec=90
  }} > "/run/systemd/system/$twin"
done
systemctl start "${{twins[@]}}"
for unit in {units}; do
  echo "unit: $unit"
  cat "$directory/pytest-nixos-escape-$unit.out"
done
systemctl reset-failed "${{twins[@]}}" 2>/dev/null
for twin in "${{twins[@]}}"; do rm -f "/run/systemd/system/$twin"; done
rm -rf $directory
"""


def _spelling(values: tuple[str, ...]) -> str:
    word = values[-1].strip().lower() if values else ""
    return "true" if parse_boolean(word) else word
