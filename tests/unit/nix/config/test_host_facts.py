from typing import Any

import pytest

from pytest_nixos.nix.command.refs import FlakeRef, HostRef
from pytest_nixos.nix.config.declared import (
    FileSystem,
    InitrdSsh,
    LuksDevice,
    PortRange,
    SwapDevice,
    VmSettings,
    Zram,
)
from pytest_nixos.nix.config.host_facts import HostConfig, parse_host_config
from pytest_nixos.nix.config.unit import Unit, parse_unit_file
from tests.unit.host_documents import UNIT, UNREADABLE, document, fact

REF = HostRef(FlakeRef("/f"), "web")


def parse(data: dict[str, Any], *paths: str) -> HostConfig:
    return parse_host_config(REF, data, option_paths=paths)


def test_facts_become_values() -> None:
    host = parse(document())
    assert (host.name, host.host_name, host.backend) == ("web", "web", "vm")
    assert host.firewall.everywhere.tcp == (
        PortRange(first=80, last=80),
        PortRange(first=443, last=443),
        PortRange(first=6000, last=6010),
    )
    assert host.firewall.allows_tcp(6005, interface="eth0")
    assert not host.firewall.allows_tcp(22, interface="eth0")
    assert host.firewall.allows_tcp(22, interface="eth1")
    assert host.firewall.allows_udp(53, interface="eth1")
    assert not host.firewall.allows_udp(80, interface="eth0")
    assert host.firewall.allows_tcp(1, interface="lo")
    assert host.sysctls == {"vm.swappiness": "10"}
    assert host.zram == Zram(
        algorithm="zstd", memory_percent=50, memory_max_bytes=None, priority=5, device_count=1
    )
    assert host.users["bob"].is_normal
    assert host.users["bob"].authorized_keys == 2
    assert host.file_systems["/"] == FileSystem(
        mount_point="/", device="/dev/a", fs_type="ext4", options=("ro",)
    )
    assert host.swap_devices == ("/dev/b",)
    assert host.swap == (SwapDevice(device="/dev/b"),)
    assert host.luks == {
        "crypt": LuksDevice(name="crypt", device="/dev/c", options=("tpm2-device=auto",))
    }
    assert host.initrd_ssh == InitrdSsh(port=2222, host_keys=("/etc/k",), by_systemd=False)
    assert host.units["x.service"].setting("Service", "ProtectSystem") == ("strict",)
    assert host.units["x.service"].setting("Service", "Nope") == ()
    assert host.vm == VmSettings(memory_mib=1024, cores=1, graphics=True, restrict_network=False)
    (secret,) = host.secrets.secrets
    assert (secret.option, secret.owner, secret.group) == ('sops.secrets."api-token"', "bob", "7")
    assert secret.restart_units == ("x.service",)
    assert host.secrets.uses[0].kind == "password-hash"
    assert host.ollama is None
    assert host.changed == {}


def test_what_cannot_be_read_is_named_and_never_guessed() -> None:
    data = document()
    data["facts"]["zram"] = UNREADABLE
    data["facts"]["users"]["bob"] = UNREADABLE
    data["facts"]["firewall"] = UNREADABLE
    del data["facts"]["units"], data["machineFacts"]["units"]
    host = parse(data)
    assert host.unreadable == (
        'boot.kernel.sysctl."kernel.bad"',
        "networking.firewall",
        "systemd.units",
        "users.users.bob",
        "zramSwap",
    )
    assert (host.zram, dict(host.users), dict(host.units)) == (None, {}, {})


@pytest.mark.parametrize(
    ("options", "host", "port"),
    [
        ({"listenAddress": "127.0.0.1:11434"}, "127.0.0.1", 11434),
        ({"listenAddress": "[::1]:9999"}, "::1", 9999),
        ({"listenAddress": "0.0.0.0"}, "127.0.0.1", 11434),
        ({"host": "0.0.0.0", "port": 80}, "0.0.0.0", 80),
        ({"host": "[::]", "port": 80}, "::", 80),
    ],
)
def test_ollama_of_each_release(options: dict[str, Any], host: str, port: int) -> None:
    data = document()
    data["facts"]["ollama"] = fact(
        {
            "host": None,
            "port": None,
            "listenAddress": None,
            "loadModels": ["m"],
            "openFirewall": False,
            "acceleration": "false",
            "environmentVariables": {"A": "b"},
            **options,
        }
    )
    ollama = parse(data).ollama
    assert ollama is not None
    assert (ollama.host, ollama.port, ollama.models) == (host, port, ("m",))


def test_options_are_present_absent_or_unreadable() -> None:
    data = document()
    data["options"] = [
        {"state": "present", "value": [1]},
        {"state": "absent"},
        {"state": "unreadable"},
    ]
    data["machineOptions"] = [
        {"state": "present", "value": [2]},
        {"state": "absent"},
        {"state": "absent"},
    ]
    host = parse(data, "a.b", "c", "d")
    assert host.option("a.b").present
    assert host.option("a.b").value == [1]
    assert [host.option(path).state for path in ("c", "d", "never.asked")] == [
        "absent",
        "unreadable",
        "absent",
    ]
    assert host.changed == {"a.b": ([1], [2]), "d": (None, None)}


def test_every_difference_of_the_machine_is_told_by_option_path() -> None:
    data = document()
    machine = data["machineFacts"]
    machine["sysctls"]["vm.swappiness"] = fact("60")
    machine["sysctls"]["new.one"] = fact("1")
    machine["file_systems"]["/"]["value"]["device"] = "/dev/vda"
    machine["kernel_params"] = fact(["loglevel=4", "console=ttyS0"])
    machine["firewall"]["value"]["allowPing"] = False
    machine["firewall"]["value"]["interfaces"]["eth1"]["allowedTCPPorts"] = []
    machine["zram"] = fact(None)
    del machine["users"]["bob"]
    machine["units"] = {
        "x.service": fact(
            {"enabled": True, "text": UNIT.replace("strict", "full"), "wantedBy": []}
        ),
        "channel.service": fact({"enabled": True, "text": "[Unit]\n", "wantedBy": []}),
    }
    machine["unitNames"] = ["x.service", "channel.service"]
    changed = parse(data).changed
    assert changed['boot.kernel.sysctl."vm.swappiness"'] == ("10", "60")
    assert changed['boot.kernel.sysctl."new.one"'] == (None, "1")
    assert changed['fileSystems."/".device'] == ("/dev/a", "/dev/vda")
    assert changed["boot.kernelParams"] == (["loglevel=4"], ["loglevel=4", "console=ttyS0"])
    assert changed["networking.firewall.allowPing"] == (True, False)
    assert changed["networking.firewall.interfaces.eth1.allowedTCPPorts"] == ([22], [])
    assert changed["zramSwap"][1] is None
    assert changed["users.users.bob"][1] is None
    assert changed['systemd.units."x.service".Service.ProtectSystem'] == (["strict"], ["full"])
    assert changed['systemd.units."x.service".wantedBy'] == (["multi-user.target"], [])
    assert changed['systemd.units."channel.service"'][0] is None
    assert len(changed) == 11


def test_a_unit_that_the_machine_lacks() -> None:
    data = document()
    data["machineFacts"]["unitNames"] = []
    before, after = parse(data).changed['systemd.units."x.service"']
    assert before["Service"]["ProtectSystem"] == ["strict"]
    assert after is None


def test_unit_files() -> None:
    text = (
        '# comment\n[Service]\n Environment = "A=b c"\n; other\nExecStart=\nExecStart=/bin/a \\\n'
        "  --long \\\n# inside\n  x=y\n\n[Install]\nnonsense\n[Service]\nExecStart=/bin/b\n"
    )
    assert parse_unit_file(text) == {
        "Service": {
            "Environment": ('"A=b c"',),
            "ExecStart": ("", "/bin/a --long x=y", "/bin/b"),
        },
        "Install": {},
    }
    assert parse_unit_file("") == {}


def test_a_unit_that_only_adds_to_others_is_known_as_one() -> None:
    said = {"enabled": True, "text": "[Slice]\nMemoryMax=1G\n", "wantedBy": []}
    assert Unit.parse("user-.slice", {**said, "dropIn": True}).is_drop_in
    assert not Unit.parse("user-.slice", said).is_drop_in  # as in a recording of an earlier release
