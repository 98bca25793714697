"""Switch the running system to this configuration: `switch`, `boot`, `test`, `dry-activate` or `check`.

Exit codes: 0 done; 1 usage, boot loader, or nothing was begun; 2 the activation failed; 3 systemd could not be told of its new units;
4 the system did switch, and units failed; 100 the new systemd needs a reboot. Of several failures the last one is reported.
"""

import fcntl
import json
import os
import subprocess
import sys

RUN = "/run/nixos"
OLD, UNITS = "/etc/systemd/system", "etc/systemd/system"
NEVER_TOUCHED = {"sysinit.target", "basic.target", "multi-user.target", "graphical.target"}
NEVER_STARTED = {"suspend.target", "hibernate.target", "hybrid-sleep.target"}
ORDERING = {
    "Wants",
    "Requires",
    "After",
    "Before",
    "Documentation",
    "Description",
    "X-Reload-Triggers",
    "X-RestartIfChanged",
    "X-StopIfChanged",
    "X-ReloadIfChanged",
}


def say(text):
    print(text, file=sys.stderr, flush=True)


def listed(label, units):
    if units:
        say(f"{label} {', '.join(sorted(units))}")


class UnitFile:
    """A unit file with its drop-ins: {section: {key: [values]}}."""

    def __init__(self, path):
        self.sections = {}
        for part in [path, *self.dropins(path)]:
            self.read(part)

    @staticmethod
    def dropins(path):
        folder = f"{path}.d"
        return (
            [f"{folder}/{name}" for name in sorted(os.listdir(folder)) if name.endswith(".conf")]
            if os.path.isdir(folder)
            else []
        )

    def read(self, path):
        section = {}
        with open(path) as file:
            text = file.read().replace("\\\n", " ")
        for line in text.splitlines():
            line = line.strip()
            if line.startswith("["):
                section = self.sections.setdefault(line[1:-1], {})
            elif line and line[0] not in "#;":
                key, _, value = line.partition("=")
                if value:
                    section.setdefault(key.strip(), []).append(value.strip())
                else:
                    section[key.strip()] = []

    def flag(self, section, key, default=False):
        values = self.sections.get(section, {}).get(key)
        return values[-1].lower() in ("true", "yes", "1", "on") if values else default


def compare(old, new):
    """Tell whether two unit files are "equal", or what a change needs: "restart" or "reload"."""
    verdict = "equal"
    for section in old.sections.keys() | new.sections.keys():
        before, after = old.sections.get(section, {}), new.sections.get(section, {})
        for key in before.keys() | after.keys():
            if before.get(key) == after.get(key) or section == "Install":
                continue
            if section == "Unit" and key == "X-Reload-Triggers":
                verdict = "reload" if verdict == "equal" else verdict
            elif section == "Unit" and key in ORDERING:
                continue
            elif section == "Mount" and key == "Options":
                verdict = "reload" if verdict == "equal" else verdict
            else:
                return "restart"
    return verdict


class Switch:
    def __init__(self, settings, toplevel, action):
        self.toplevel, self.action = toplevel, action
        self.systemctl_path = f"{settings['systemd']}/bin/systemctl"
        self.tmpfiles = f"{settings['systemd']}/bin/systemd-tmpfiles"
        self.settings = settings
        self.dry = action == "dry-activate"
        self.status = 0
        self.stop, self.start, self.restart, self.reload = set(), set(), set(), set()
        self.skipped, self.filtered = set(), set()

    # -- systemd

    def systemctl(self, *arguments):
        return subprocess.run([self.systemctl_path, *arguments], check=False).returncode

    def active_units(self):
        command = [
            self.systemctl_path,
            "list-units",
            "--all",
            "--full",
            "--plain",
            "--no-legend",
            "--no-pager",
        ]
        rows = subprocess.run(
            command, capture_output=True, text=True, check=True
        ).stdout.splitlines()
        units = {}
        for row in rows:
            name, load, state, sub, *_ = row.split(None, 4)
            units[name] = {"load": load, "state": state, "sub": sub}
        return units

    def unit_path(self, folder, unit):
        """The file of a unit, or of the template that it is an instance of."""
        path = f"{folder}/{unit}"
        if not os.path.lexists(path) and "@" in unit:
            prefix, _, rest = unit.partition("@")
            path = f"{folder}/{prefix}@.{rest.rpartition('.')[2]}"
        return path

    # -- deciding

    def decide(self, before):
        for unit, state in before.items():
            if state["state"] not in ("active", "activating"):
                continue
            old, new = self.unit_path(OLD, unit), self.unit_path(f"{self.toplevel}/{UNITS}", unit)
            if not os.path.exists(old):
                continue
            if not os.path.exists(new) or os.path.realpath(new) == "/dev/null":
                if UnitFile(old).flag("Unit", "X-StopOnRemoval", True):
                    self.stop.add(unit)
            elif unit.endswith(".target"):
                self.decide_target(unit, UnitFile(new))
            else:
                verdict = (
                    compare(UnitFile(old), UnitFile(new)) if self.differs(old, new) else "equal"
                )
                if verdict != "equal":
                    self.decide_changed(unit, UnitFile(new), verdict, before)
        self.decide_mounts()

    @staticmethod
    def differs(old, new):
        if os.path.realpath(old) != os.path.realpath(new):
            return True
        return [os.path.realpath(p) for p in UnitFile.dropins(old)] != [
            os.path.realpath(p) for p in UnitFile.dropins(new)
        ]

    def decide_target(self, unit, new):
        if unit not in NEVER_STARTED and not (
            new.flag("Unit", "RefuseManualStart") or new.flag("Unit", "X-OnlyManualStart")
        ):
            self.start.add(unit)
            self.filtered.add(unit)
        if new.flag("Unit", "X-StopOnReconfiguration"):
            self.stop.add(unit)

    def decide_changed(self, unit, new, verdict, before):
        kind = unit.rpartition(".")[2]
        if unit in NEVER_TOUCHED or kind in ("path", "slice"):
            return
        if kind == "mount":
            (
                self.reload
                if verdict == "reload" or unit in ("-.mount", "nix.mount", "nix-store.mount")
                else self.restart
            ).add(unit)
        elif kind == "socket":
            # Stopped and started with its service, or on its own.
            self.stop.add(unit)
            self.start.add(unit)
        elif verdict == "reload" or new.flag("Service", "X-ReloadIfChanged"):
            self.reload.add(unit)
        elif (
            not new.flag("Service", "X-RestartIfChanged", True)
            or new.flag("Unit", "RefuseManualStop")
            or new.flag("Unit", "X-OnlyManualStart")
        ):
            self.skipped.add(unit)
        elif not new.flag("Service", "X-StopIfChanged", True):
            self.restart.add(unit)
        else:
            self.decide_stopped(unit, new, before)

    def decide_stopped(self, unit, new, before):
        """A changed service is stopped before the activation and started after it; its socket is what starts it, where it has one."""
        sockets = " ".join(new.sections.get("Service", {}).get("Sockets", [])).split() or [
            unit.removesuffix(".service") + ".socket"
        ]
        active = [
            s
            for s in sockets
            if before.get(s, {}).get("state") == "active"
            and os.path.exists(f"{self.toplevel}/{UNITS}/{s}")
        ]
        self.stop.add(unit)
        if active and not new.flag("Service", "X-NotSocketActivated"):
            self.stop.update(active)
            self.start.update(active)
        else:
            self.start.add(unit)

    def decide_mounts(self):
        old, new = self.fstab("/etc/fstab"), self.fstab(f"{self.toplevel}/etc/fstab")
        for target, row in old.items():
            if row[2] == "swap":
                if target not in new:
                    self.swap_off(target)
                continue
            if new.get(target) == row:
                continue
            unit = self.mount_unit(target)
            if target not in new:
                self.stop.add(unit)
            elif new[target][0] != row[0] or new[target][2] != row[2]:
                (self.skipped if target in ("/", "/nix") else self.restart).add(unit)
            elif new[target][3] != row[3]:
                self.reload.add(unit)

    def mount_unit(self, target):
        command = [
            f"{self.settings['systemd']}/bin/systemd-escape",
            "--path",
            "--suffix=mount",
            target,
        ]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    @staticmethod
    def fstab(path):
        with open(path) as file:
            rows = [
                line.split() for line in file if line.strip() and not line.lstrip().startswith("#")
            ]
        return {row[0] if row[2] == "swap" else row[1]: row for row in rows if len(row) >= 4}

    def swap_off(self, device):
        if self.dry:
            say(f"would stop swap device: {device}")
        else:
            say(f"stopping swap device: {device}")
            subprocess.run([f"{self.settings['util_linux']}/sbin/swapoff", device], check=False)

    # -- doing

    def tell_dry(self):
        listed("would stop the following units:", self.stop - self.filtered)
        listed("would NOT stop the following changed units:", self.skipped)
        say("would activate the configuration...")
        subprocess.run(
            [f"{self.toplevel}/dry-activate", self.toplevel],
            env={**os.environ, "NIXOS_ACTION": self.action},
            check=False,
        )
        for name, target in (
            ("dry-activation-restart-list", self.restart),
            ("dry-activation-reload-list", self.reload),
        ):
            target.update(self.take_list(name))
        listed("would reload the following units:", self.reload)
        listed("would restart the following units:", self.restart)
        listed("would start the following units:", self.start - self.filtered)

    def take_list(self, name):
        path = f"{RUN}/{name}"
        if not os.path.exists(path):
            return set()
        with open(path) as file:
            units = {line.strip() for line in file if line.strip()}
        os.unlink(path)
        return units

    def act(self, before):
        if self.stop:
            listed("stopping the following units:", self.stop - self.filtered)
            self.systemctl("stop", "--", *sorted(self.stop))
        listed("NOT restarting the following changed units:", self.skipped)
        say("activating the configuration...")
        environment = {
            **os.environ,
            "NIXOS_ACTION": self.action,
            "LOCALE_ARCHIVE": "/run/current-system/sw/lib/locale/locale-archive",
        }
        if subprocess.run(
            [f"{self.toplevel}/activate", self.toplevel], env=environment, check=False
        ).returncode:
            self.status = 2
        self.restart |= self.take_list("activation-restart-list")
        self.reload |= self.take_list("activation-reload-list")
        self.systemctl("reset-failed")
        if self.systemctl("daemon-reload"):
            self.status = 3
        subprocess.run(
            [self.tmpfiles, "--create", "--remove", "--exclude-prefix=/dev"],
            stderr=subprocess.DEVNULL,
            check=False,
        )
        running = {
            unit for unit, state in self.active_units().items() if state["state"] == "active"
        }
        inactive = {
            unit for unit in self.reload if unit.endswith(".service") and unit not in running
        }
        self.start |= inactive
        self.reload -= inactive
        self.run_units("reloading the following units:", "reload", self.reload)
        self.run_units("restarting the following units:", "restart", self.restart)
        self.run_units("starting the following units:", "start", self.start)
        self.tell_result(before)

    def run_units(self, label, verb, units):
        if units:
            listed(label, units - self.filtered)
            if self.systemctl(verb, "--", *sorted(units)):
                self.status = 4

    def tell_result(self, before):
        after = self.active_units()
        failed, new = [], []
        for unit, state in sorted(after.items()):
            if state["state"] == "failed" or (
                state["state"] == "activating" and state["sub"] == "auto-restart"
            ):
                failed.append(unit)
            elif (
                state["state"] != "failed"
                and before.get(unit, {}).get("state") not in ("active", "activating")
                and state["state"] in ("active", "activating")
            ):
                if (
                    not unit.endswith((".scope", ".device", ".slice", ".swap"))
                    and unit not in self.start | self.restart
                ):
                    new.append(unit)
        listed("the following new units were started:", new)
        if failed:
            say(f"warning: the following units failed: {', '.join(failed)}")
            subprocess.run(
                [self.systemctl_path, "status", "--no-pager", "--full", *failed],
                stdout=sys.stderr,
                check=False,
            )
            self.status = 4


def refuse(text, status=1):
    say(text)
    sys.exit(status)


def main():
    with open(sys.argv[1]) as file:
        settings = json.load(file)
    toplevel, arguments = sys.argv[2], sys.argv[3:]
    action = arguments[0] if len(arguments) == 1 else None
    if action not in ("switch", "boot", "test", "dry-activate", "check"):
        refuse(
            f"Usage: {toplevel}/bin/switch-to-configuration [check|switch|boot|test|dry-activate]\n"
            "check:        run pre-switch checks and exit\n"
            "switch:       make the configuration the boot default and activate now\n"
            "boot:         make the configuration the boot default\n"
            "test:         activate the configuration, but don't make it the boot default\n"
            "dry-activate: show what would be done if this configuration were activated"
        )
    if not os.path.exists("/etc/NIXOS"):
        refuse("This is not a NixOS installation!")
    old = os.path.realpath("/run/current-system")
    if subprocess.run([settings["pre_switch_checks"], toplevel, action], check=False).returncode:
        refuse("Pre-switch checks failed")
    if action == "check":
        sys.exit(0)

    os.makedirs(RUN, mode=0o755, exist_ok=True)
    lock = open(f"{RUN}/switch-to-configuration.lock", "a")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        refuse("Could not acquire lock")

    if action in ("switch", "boot"):
        if subprocess.run([settings["install_boot_loader"], toplevel], check=False).returncode:
            sys.exit(1)
    if action == "boot":
        sys.exit(0)

    def interface(system):
        path = f"{system}/init-interface-version"
        return open(path).read() if os.path.exists(path) else ""

    if interface("/run/current-system") != interface(toplevel):
        refuse(
            "Warning: the new NixOS configuration has an ‘init’ that is\nincompatible with the current configuration.  The new configuration\nwill take effect after reboot.",
            100,
        )
    os.umask(0o022)
    switch = Switch(settings, toplevel, action)
    before = switch.active_units()
    switch.decide(before)
    if switch.dry:
        switch.tell_dry()
        sys.exit(0)
    switch.act(before)
    sys.exit(switch.status)


main()
