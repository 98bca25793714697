"""``pytest-nixos machines``, ``ssh``, ``ssh-config``: machines that run already, and ssh into them."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator

from pytest_nixos.cli.by_hand import names_host, ssh_in_new_machine
from pytest_nixos.cli.command import CommandEnd, Commands
from pytest_nixos.errors import SettingsError
from pytest_nixos.local.process import find_tool
from pytest_nixos.machine.door.ssh_access import ssh_configuration, ssh_configuration_file
from pytest_nixos.machine.door.visitor import OpenDoor, find_door, open_doors

__all__ = ["add"]


def add(commands: Commands) -> None:
    """Declare the commands."""
    machines = commands.add_parser(
        "machines",
        help="list machines that run now, or end those that --nixos-keep or --nixos-spare left",
    )
    machines.set_defaults(command=_machines)
    machines.add_argument("--json", action="store_true", help="as JSON")
    machines.add_argument(
        "--stop",
        action="append",
        default=[],
        metavar="NAME",
        help="end a kept machine (repeatable)",
    )
    machines.add_argument("--stop-all", action="store_true", help="end all kept machines")
    ssh = commands.add_parser(
        "ssh", help="ssh into a host's machine, or one that runs, by a key of its run"
    )
    ssh.set_defaults(command=_ssh, behind=())
    ssh.add_argument("host", metavar="REF#HOST|NAME")
    ssh.add_argument(
        "arguments",
        nargs=argparse.REMAINDER,
        metavar="...",
        help="options of pytest, as --nixos-backend (REF#HOST), or of ssh, as -L (NAME) -- COMMAND",
    )
    config = commands.add_parser(
        "ssh-config", help="print ssh_config(5) for machines that run, for ssh, scp, rsync, ansible"
    )
    config.set_defaults(command=_ssh_config)
    config.add_argument("names", nargs="*", metavar="NAME", help="by default all")
    proxy = commands.add_parser("ssh-proxy", help="what the configuration has ssh start")
    proxy.set_defaults(command=_ssh_proxy)
    proxy.add_argument("name", metavar="NAME")


def _machines(options: argparse.Namespace) -> Iterator[str]:
    if options.stop or options.stop_all:
        kept = [door for door in open_doors() if door.card.kept]
        doors = kept if options.stop_all else [find_door(name) for name in options.stop]
        for door in doors:
            door.end()
            _await_end(door)
            yield f"{door.card.name}: ended"
        return
    doors = list(open_doors())
    if options.json:
        yield json.dumps([door.card.to_json() for door in doors], indent=2)
        return
    if not doors:
        yield "no machine runs; pytest-nixos shell REF#HOST starts one"
    for door in doors:
        yield _line(door)


def _line(door: OpenDoor) -> str:
    card = door.card
    age_min = (time.time() - card.started_at_s) / 60
    if card.spare:
        state = "stopped until a run takes it" if card.waits else "a spare on its way up"
        return (
            f"{card.name}  {card.host}  {card.backend}, {age_min:.0f} min, {state}; "
            f"end it: pytest-nixos machines --stop {card.name}"
        )
    whose = (
        f"kept; end it: pytest-nixos machines --stop {card.name}"
        if card.kept
        else f"of process {card.owner}, and ends with it"
    )
    return f"{card.name}  {card.host}  {card.backend}, {age_min:.0f} min, {whose}"


def _await_end(door: OpenDoor) -> None:
    end_s = time.monotonic() + 60.0
    while door.directory.exists() and time.monotonic() < end_s:
        time.sleep(0.05)


def _ssh(options: argparse.Namespace) -> Iterator[str]:
    if names_host(options.host):
        raise CommandEnd(ssh_in_new_machine(options.host, options.arguments, options.behind))
    door = find_door(options.host)
    ssh = find_tool("ssh", remedy="install openssh's client")
    file = ssh_configuration_file(door)
    os.execv(ssh, [ssh, "-F", str(file), *options.arguments, door.card.name, *options.behind])  # noqa: S606 - a list of words
    yield  # a generator, as every command


def _ssh_config(options: argparse.Namespace) -> Iterator[str]:
    running = [door for door in open_doors() if not door.card.spare]
    doors = [find_door(name) for name in options.names] or running
    if not doors:
        raise SettingsError(
            "no machine runs", remedy="start one: pytest-nixos shell REF#HOST, in another terminal"
        )
    for door in doors:
        yield ssh_configuration(door)


def _ssh_proxy(options: argparse.Namespace) -> Iterator[str]:
    from pytest_nixos.machine.door.ssh_server import serve_client

    serve_client(find_door(options.name), stdin=0, stdout=1)
    raise CommandEnd(0)
    yield  # a generator, as every command
