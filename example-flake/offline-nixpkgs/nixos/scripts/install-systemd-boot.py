"""Install systemd-boot and one entry per generation on the EFI system partition.

install-systemd-boot SETTINGS TOPLEVEL [ROOT]: TOPLEVEL becomes the default; ROOT is where the system's root is mounted.
"""

import datetime
import glob
import hashlib
import json
import os
import re
import shutil
import sys

PROFILE = "/nix/var/nix/profiles/system"


def generations(root, limit):
    """Numbers and toplevels of the system profile, oldest first."""
    found = []
    for link in glob.glob(f"{root}{PROFILE}-*-link"):
        number = re.fullmatch(r".*/system-(\d+)-link", link)
        if number and os.path.isdir(os.readlink(link)):
            found.append((int(number[1]), os.readlink(link), os.lstat(link).st_mtime))
    found.sort()
    return found[-limit:] if limit else found


def write(path, text):
    """Write a file so that a loss of power leaves the old one or the new one."""
    with open(f"{path}.tmp", "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(f"{path}.tmp", path)


class Installer:
    def __init__(self, settings, root):
        self.settings, self.root = settings, root
        self.esp = root + settings["esp"]
        self.entries = f"{self.esp}/loader/entries"
        self.kept_files, self.kept_entries = set(), set()

    def copy(self, source):
        """Copy a kernel or initrd once, named by its store path; return its path on the partition."""
        real = os.path.realpath(source)
        name = "-".join(real.split("/")[3:]) + ".efi"
        target = f"{self.esp}/EFI/nixos/{name}"
        if not os.path.exists(target):
            shutil.copyfile(real, f"{target}.tmp")
            os.replace(f"{target}.tmp", target)
        self.kept_files.add(name)
        return f"/EFI/nixos/{name}"

    def name(self, number, toplevel, specialisation=""):
        """An entry's id: by number as up to nixpkgs 26.05, by hash where boots are counted, which came with 26.11."""
        if self.settings["tries"]:
            return "nixos-" + hashlib.sha256(f"{toplevel}\0{specialisation}".encode()).hexdigest()
        return f"nixos-generation-{number}" + (
            f"-specialisation-{specialisation}" if specialisation else ""
        )

    def entry(self, name, toplevel, number, made, specialisation=""):
        with open(f"{toplevel}/kernel-params") as file:
            params = file.read().strip()
        with open(f"{toplevel}/nixos-version") as file:
            version = file.read().strip()
        title = self.settings["distro"] + (f" ({specialisation})" if specialisation else "")
        text = f"title {title}\n"
        text += f"version Generation {number} {title} {version}, built on {datetime.date.fromtimestamp(made)}\n"
        text += f"linux {self.copy(f'{toplevel}/kernel')}\n"
        text += f"initrd {self.copy(f'{toplevel}/initrd')}\n"
        text += f"options init={toplevel}/init {params}\n"
        text += "sort-key nixos\n"
        # An entry that is being counted, or has been found good, keeps its counter.
        present = [
            file
            for file in os.listdir(self.entries)
            if re.fullmatch(re.escape(name) + r"(\+\d+(-\d+)?)?\.conf", file)
        ]
        for file in present:
            with open(f"{self.entries}/{file}") as old:
                if old.read() == text:
                    self.kept_entries.add(file)
                    return
        tries = self.settings["tries"]
        file = f"{name}+{tries}.conf" if tries else f"{name}.conf"
        write(f"{self.entries}/{file}", text)
        self.kept_entries.add(file)

    def install(self, toplevel):
        for folder in ("EFI/BOOT", "EFI/systemd", "EFI/nixos", "loader/entries"):
            os.makedirs(f"{self.esp}/{folder}", exist_ok=True)
        for program in ("EFI/BOOT/BOOTX64.EFI", "EFI/systemd/systemd-bootx64.efi"):
            if not os.path.exists(f"{self.esp}/{program}"):
                shutil.copyfile(self.settings["loader"], f"{self.esp}/{program}")
        default = None
        for number, path, made in generations(self.root, self.settings["limit"]):
            self.entry(self.name(number, path), path, number, made)
            children = f"{path}/specialisation"
            for child in sorted(os.listdir(children)) if os.path.isdir(children) else []:
                self.entry(
                    self.name(number, path, child),
                    os.path.realpath(f"{children}/{child}"),
                    number,
                    made,
                    child,
                )
            if os.path.realpath(path) == os.path.realpath(toplevel):
                default = self.name(number, path)
        if default is None:
            print(f"{toplevel} is no generation of the system profile", file=sys.stderr)
            return 1
        timeout = self.settings["timeout"]
        conf = f"timeout {'menu-force' if timeout is None else timeout}\n"
        # What boot counting gave up is not preferred any more: then the newest of all that are left.
        conf += (
            f"preferred {default}.conf\ndefault nixos-*\n"
            if self.settings["tries"]
            else f"default {default}.conf\n"
        )
        conf += "" if self.settings["editor"] else "editor 0\n"
        conf += f"console-mode {self.settings['console_mode']}\n"
        write(f"{self.esp}/loader/loader.conf", conf)
        self.tidy()
        os.sync()
        return 0

    def tidy(self):
        for file in os.listdir(self.entries):
            if file.startswith("nixos-") and file not in self.kept_entries:
                os.unlink(f"{self.entries}/{file}")
        for file in os.listdir(f"{self.esp}/EFI/nixos"):
            if file not in self.kept_files:
                os.unlink(f"{self.esp}/EFI/nixos/{file}")


def main(settings, toplevel, root=""):
    with open(settings) as file:
        return Installer(json.load(file), root).install(toplevel)


sys.exit(main(*sys.argv[1:]))
