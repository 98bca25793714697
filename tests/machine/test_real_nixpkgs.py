"""Hosts of a real nixpkgs, evaluated to their facts and to the derivation of their machines;
nothing is built.

``PYTEST_NIXOS_NIXPKGS`` names a nixpkgs tree of any release from 22.05 on.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from pytest_nixos.errors import EvalError
from pytest_nixos.local.process import SubprocessRunner
from pytest_nixos.nix.building.store import Nix
from pytest_nixos.nix.command.argv import NixSettings
from pytest_nixos.nix.command.refs import FlakeRef
from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.nix.expression import Instrumentation
from pytest_nixos.nix.failure.evaluation import ImageRefused
from pytest_nixos.nix.flake import Flake
from tests.support.nixpkgs_tree import overlays

NIXPKGS = os.environ.get("PYTEST_NIXOS_NIXPKGS", "")
PROGRAM = os.environ.get("PYTEST_NIXOS_NIX_PROGRAMS", "nix").split(":")[0]

pytestmark = [
    pytest.mark.skipif(not NIXPKGS, reason="PYTEST_NIXOS_NIXPKGS names no nixpkgs tree"),
    pytest.mark.skipif(not shutil.which(PROGRAM), reason=f"no such program: {PROGRAM}"),
]

OVERLAYS = overlays(NIXPKGS)

HOSTS = """
{
  inputs.nixpkgs.url = "path:@NIXPKGS@";
  outputs = { self, nixpkgs }: let
    vmHello = _: prev: { hello = prev.hello.overrideAttrs { pname = "hello-of-the-vm"; }; };
    base = { lib, ... }: {
      nixpkgs.overlays = @OVERLAYS@;
      system.stateVersion = "24.05";
      fileSystems."/" = { device = "/dev/vda1"; fsType = "ext4"; };
      boot.loader.grub.device = "/dev/vda";
    };
    host = module: nixpkgs.lib.nixosSystem {
      system = "x86_64-linux";
      specialArgs = { inherit self; unstable = nixpkgs; };
      modules = [ base module ];
    };
  in {
    nixosConfigurations = {
      "web.example-1.org" = host ({ unstable, ... }: {
        networking.hostName = "web";
        networking.nftables.enable = true;
        networking.firewall = {
          allowedTCPPorts = [ 80 443 ];
          allowedUDPPortRanges = [ { from = 6000; to = 6010; } ];
          interfaces.eth1.allowedTCPPorts = [ 22 ];
          trustedInterfaces = [ "wg0" ];
        };
        boot.initrd.systemd.enable = true;
        boot.kernel.sysctl = { "net.ipv4.tcp_syncookies" = true; "kernel.x" = null; "kernel.y" = "a b"; "vm.swappiness" = 10; };
        zramSwap = { enable = true; memoryMax = 1000000; memoryPercent = 25; algorithm = "lzo"; priority = 7; };
        swapDevices = [ { device = "/dev/vdb1"; } ];
        warnings = [ "my warning" ];
        systemd.services.foo = {
          serviceConfig = { ProtectSystem = "strict"; ReadWritePaths = [ "/a" "/b" ]; NoNewPrivileges = true; ExecStart = "/bin/x"; };
          wantedBy = [ "multi-user.target" ];
        };
        systemd.timers.foo = { timerConfig.OnCalendar = "daily"; wantedBy = [ "timers.target" ]; };
        systemd.services.off = { enable = false; script = "x"; };
        users.users.bob = { isNormalUser = true; uid = 1234; extraGroups = [ "wheel" ]; openssh.authorizedKeys.keys = [ "ssh-ed25519 AAAA" ]; };
        virtualisation.vmVariant.virtualisation = { memorySize = 3000; cores = 3; };
        environment.systemPackages = [ unstable.legacyPackages.x86_64-linux.hello ];
      });
      ssh = host { networking.hostName = "ssh"; documentation.nixos.includeAllModules = true; services.openssh.enable = true; services.ollama.enable = true; };
      container = host { networking.hostName = "cont"; boot.isContainer = true; };
      initrd-secrets = host { boot.initrd.secrets."/key" = "/etc/secrets/initrd/key"; };
      vm-packages = host ({ pkgs, ... }: {
        environment.systemPackages = [ pkgs.hello ];
        virtualisation.vmVariant.nixpkgs.overlays = [ vmHello ];
      });
      vm-known = host ({ lib, options, pkgs, ... }: {
        environment.systemPackages = [ pkgs.hello ];
        nixpkgs.overlays = lib.optional (options.virtualisation ? memorySize) vmHello;
      });
      router = host {
        networking = {
          hostName = "router";
          useDHCP = false;
          interfaces.enp3s0.ipv4.addresses = [ { address = "10.0.0.1"; prefixLength = 24; } ];
          interfaces.enp3s0.mtu = 1400;
          interfaces.office.ipv4.addresses = [ { address = "10.7.0.1"; prefixLength = 24; } ];
          vlans.office = { id = 7; interface = "enp3s0"; };
          bridges.br0.interfaces = [ "eno2" ];
        };
        systemd.network.links."10-wan" = { matchConfig.MACAddress = "02:11:22:33:44:55"; linkConfig.Name = "wan0"; };
      };
      networkd = host {
        networking = { hostName = "networkd"; useNetworkd = true; useDHCP = false; };
        systemd.network.netdevs."20-lost" = { netdevConfig = { Kind = "vlan"; Name = "lost"; }; vlanConfig.Id = 6; };
        systemd.network.networks."30-lan" = { matchConfig.Name = "lan0"; networkConfig.Address = "10.0.0.2/24"; };
      };
      iso = host ({ lib, ... }: { options.isoImage.isoName = lib.mkOption { default = "x"; }; });
      acme = host {
        networking.hostName = "acme";
        documentation.nixos.enable = true;
        security.acme = { acceptTerms = true; defaults.email = "a@example.org"; };
        services.nginx = { enable = true; virtualHosts."a.example.org" = { enableACME = true; forceSSL = true; root = "/srv"; }; };
      };
      etc-overlay = host { networking.hostName = "overlay"; boot.initrd.systemd.enable = true; system.etc.overlay.enable = true; };
      perlless = host ({ modulesPath, ... }: {
        imports = [ (modulesPath + "/profiles/perlless.nix") ];
        networking.hostName = "perlless";
        boot.initrd.systemd.enable = true;
      });
      sysusers = host ({ lib, ... }: {
        options.age.secrets = lib.mkOption { type = lib.types.attrsOf lib.types.attrs; };
        options.age.identityPaths = lib.mkOption { type = lib.types.listOf lib.types.str; };
        config = {
          networking.hostName = "sysusers";
          systemd.sysusers.enable = true;
          users = { mutableUsers = false; allowNoPasswordLogin = true; };
          users.users.alice = { isNormalUser = true; uid = 1000; linger = true; };
          age.secrets.token = { name = "token"; file = "/x.age"; path = "/run/agenix/token"; owner = "0"; group = "0"; mode = "0400"; };
          age.identityPaths = [ "/etc/key" ];
        };
      });
      arm = nixpkgs.lib.nixosSystem { system = "aarch64-linux"; modules = [ base ]; };
      cross = host { nixpkgs.hostPlatform = "aarch64-linux"; nixpkgs.buildPlatform = "x86_64-linux"; };
      asserts = host { assertions = [ { assertion = false; message = "ports must be even"; } ]; };
    };
  };
}
"""
WEB = "web.example-1.org"


NIX = Nix(runner=SubprocessRunner(), settings=NixSettings(program=PROGRAM))
INSTRUMENTATION = Instrumentation(channel_script="echo \"${HOME}\" '' \\ $(pwd)", memory_mib=2222)


@pytest.fixture(scope="module")
def flake(tmp_path_factory: pytest.TempPathFactory) -> Flake:
    folder = tmp_path_factory.mktemp("real")
    text = HOSTS.replace("@NIXPKGS@", str(Path(NIXPKGS).resolve()))
    (folder / "flake.nix").write_text(text.replace("@OVERLAYS@", OVERLAYS))
    # Without a lock file each command would copy the whole tree again.
    subprocess.run(
        [PROGRAM, "--extra-experimental-features", "nix-command flakes", "flake", "lock", f"path:{folder}"],
        check=True,
    )  # fmt: skip
    return Flake(FlakeRef(f"path:{folder}"), NIX, INSTRUMENTATION)


@pytest.fixture(scope="module")
def web(flake: Flake) -> HostConfig:
    paths = ["services.openssh.enable", 'boot.kernel.sysctl."vm.swappiness"', "no.such.option"]
    paths.append("environment.blcr.enable")
    return flake.evaluate(WEB, option_paths=[*paths, "virtualisation.graphics"])


def test_hosts_are_listed(flake: Flake) -> None:
    assert flake.host_names() == (
        *(
            "acme",
            "arm",
            "asserts",
            "container",
            "cross",
            "etc-overlay",
            "initrd-secrets",
            "iso",
            "networkd",
        ),
        *("perlless", "router", "ssh", "sysusers", "vm-known", "vm-packages", WEB),
    )


def test_declared_facts(web: HostConfig) -> None:
    assert (web.host_name, web.system_name, web.backend) == ("web", "web", "vm")
    assert (web.system, web.state_version, web.program) == (
        "x86_64-linux",
        "24.05",
        "bin/run-web-vm",
    )
    assert re.fullmatch(r"\d\d\.\d\d", web.release)
    assert web.version.startswith(web.release)
    assert web.warnings == ("my warning",)
    assert web.swap_devices == ("/dev/vdb1",)
    assert web.file_systems["/"].fs_type == "ext4"
    assert "loglevel=4" in web.kernel_params
    assert "users" in web.groups
    assert web.unreadable == ()


def test_firewall(web: HostConfig) -> None:
    firewall = web.firewall
    assert (firewall.enabled, firewall.backend) == (True, "nftables")
    assert firewall.allows_tcp(443, interface="eth0")
    assert firewall.allows_udp(6005, interface="eth0")
    assert firewall.allows_tcp(22, interface="eth1")
    assert not firewall.allows_tcp(22, interface="eth0")
    assert firewall.trusted_interfaces == ("wg0", "lo")


def test_sysctls_are_as_the_kernel_prints_them(web: HostConfig) -> None:
    assert web.sysctls["vm.swappiness"] == "10"
    assert web.sysctls["net.ipv4.tcp_syncookies"] == "1"
    assert web.sysctls["kernel.y"] == "a b"
    assert "kernel.x" not in web.sysctls


def test_zram_and_users(web: HostConfig) -> None:
    assert web.zram is not None
    assert (web.zram.algorithm, web.zram.memory_percent) == ("lzo", 25)
    assert (web.zram.memory_max_bytes, web.zram.priority) == (1000000, 7)
    bob = web.users["bob"]
    assert (bob.uid, bob.is_normal, bob.extra_groups) == (1234, True, ("wheel",))
    assert (bob.authorized_keys, bob.shell) == (1, "/run/current-system/sw/bin/bash")


def test_units_are_the_finished_unit_files(web: HostConfig) -> None:
    foo = web.units["foo.service"]
    assert foo.setting("Service", "ProtectSystem") == ("strict",)
    assert foo.setting("Service", "ReadWritePaths") == ("/a", "/b")
    assert foo.setting("Service", "NoNewPrivileges") == ("true",)
    assert foo.wanted_by == ("multi-user.target",)
    assert web.units["foo.timer"].setting("Timer", "OnCalendar") == ("daily",)
    assert not web.units["off.service"].enabled


def test_the_hosts_own_vm_settings_are_told_and_ours_are_in_the_machine(web: HostConfig) -> None:
    assert web.vm is not None
    assert (web.vm.memory_mib, web.vm.cores, web.vm.graphics) == (3000, 3, True)


def test_options(web: HostConfig) -> None:
    assert web.option("services.openssh.enable").value is False
    assert web.option('boot.kernel.sysctl."vm.swappiness"').value == 10
    assert web.option("no.such.option").state == "absent"
    # Behind mkRemovedOptionModule since 21.05.
    assert web.option("environment.blcr.enable").state == "absent"
    # An option that only the VM variant has is absent in the host and told as changed.
    assert web.option("virtualisation.graphics").state == "absent"
    assert web.changed["virtualisation.graphics"] == (None, False)


def test_every_change_is_one_that_the_vm_or_the_channel_explains(web: HostConfig) -> None:
    channel = 'systemd.units."pytest-nixos-channel.service"'
    assert web.changed[channel][0] is None
    assert web.changed['fileSystems."/".device'][0] == "/dev/vda1"
    assert web.changed["swapDevices"] == (["/dev/vdb1"], [])
    explained = (
        "fileSystems.",
        "systemd.units.",
        "boot.kernelParams",
        "swapDevices",
        "users.",
        "system.build.installBootLoader",  # none, where the kernel is started directly
        "virtualisation.",
    )
    assert [path for path in web.changed if not path.startswith(explained)] == []


def test_the_channel_survives_switches_isolation_and_memory_hunger(web: HostConfig) -> None:
    unit = web.changed['systemd.units."pytest-nixos-channel.service"'][1]
    assert unit["wantedBy"] == ["sysinit.target", "emergency.target", "rescue.target"]
    assert unit["Unit"]["DefaultDependencies"] == ["false"]
    assert unit["Unit"]["IgnoreOnIsolate"] == ["true"]
    assert unit["Unit"]["X-StopOnReconfiguration"] == ["false"]
    assert unit["Unit"]["X-StopOnRemoval"] == ["false"]
    sections = {**unit["Unit"], **unit["Service"]}
    assert sections["X-RestartIfChanged"] == ["false"]
    assert unit["Service"]["OOMScoreAdjust"] == ["-1000"]
    assert unit["Service"]["OOMPolicy"] == ["continue"]
    assert unit["Service"]["IgnoreSIGPIPE"] == ["false"]
    assert re.fullmatch(
        r"/nix/store/\S+/bin/bash /nix/store/\S+\.bash", *unit["Service"]["ExecStart"]
    )
    assert any("coreutils" in value for value in unit["Service"]["Environment"])


def requisites(derivation: str) -> str:
    return subprocess.run(
        ["nix-store", "--query", "--requisites", derivation], check=True, capture_output=True, text=True
    ).stdout  # fmt: skip


def test_the_machine_and_its_generations_carry_the_channel(flake: Flake, web: HostConfig) -> None:
    assert "pytest-nixos-channel" in requisites(web.derivation)
    delta = '{ pkgs, ... }: { environment.etc."pytest-nixos-delta".text = pkgs.system; }'
    plain = flake.instantiate_generation(WEB, backend="vm", delta="{ }")
    changed = flake.instantiate_generation(WEB, backend="vm", delta=delta)
    assert plain != changed
    assert "nixos-system-web" in plain
    assert plain in requisites(web.derivation)
    assert "pytest-nixos-channel" in requisites(changed)
    assert "pytest-nixos-delta" in requisites(changed)


def test_the_hosts_packages_are_the_machines_unless_it_defines_its_own(
    flake: Flake, web: HostConfig
) -> None:
    # Beside a module that could change them, the machine has a set of packages of its own.
    separate = flake.instantiate_generation(WEB, backend="vm", delta="{ imports = [ ]; }")
    assert separate in requisites(web.derivation)
    for name in ("vm-packages", "vm-known"):
        assert "hello-of-the-vm" in requisites(flake.evaluate(name).derivation)


def test_a_vm_has_the_manual_of_nixos_only_where_its_host_asks_for_it_or_may_break_it(
    flake: Flake, web: HostConfig
) -> None:
    manual = "nixos-configuration-reference-manpage"
    assert manual not in requisites(web.derivation)
    assert manual in requisites(flake.evaluate("acme").derivation)
    assert manual in requisites(flake.evaluate("ssh").derivation)


def test_secrets_of_the_initrd_keep_no_machine_from_being_made(flake: Flake) -> None:
    # Its kernel is started without a boot loader, and nixpkgs asserts that one appends the secrets.
    assert flake.evaluate("initrd-secrets").derivation.endswith("-vm.drv")


def test_settings_of_the_machine_go_into_its_run_script(flake: Flake, web: HostConfig) -> None:
    other = Flake(flake.ref, NIX, replace(INSTRUMENTATION, memory_mib=4444, cores=2))
    assert other.evaluate(WEB).derivation != web.derivation


@pytest.mark.parametrize("backend", ["auto", "container"])
def test_containers(flake: Flake, backend: str) -> None:
    attr = "container" if backend == "auto" else "ssh"
    host = flake.evaluate(attr, backend=backend)
    assert (host.backend, host.program) == ("container", "")
    assert host.is_container is (backend == "auto")
    assert "nixos-system" in host.derivation
    assert not [path for path in host.changed if "pytest-nixos" in path]
    if backend == "container":
        assert host.changed["boot.isContainer"] == (False, True)


def test_ollama_and_ssh_of_this_release(flake: Flake) -> None:
    paths = [
        "services.openssh.settings",
        "services.openssh.passwordAuthentication",
        "services.ollama",
    ]
    host = flake.evaluate("ssh", option_paths=paths)
    assert host.ollama is not None
    assert (host.ollama.host, host.ollama.port) == ("127.0.0.1", 11434)
    settings: Mapping[str, Any] = host.option("services.openssh.settings").value
    assert settings["PermitRootLogin"] == "prohibit-password"
    assert (
        host.option("services.openssh.passwordAuthentication").value is True
    )  # renamed, still read
    assert host.units["sshd.service"].enabled


def test_what_wants_certificates_of_acme_starts_with_those_that_the_module_makes(
    flake: Flake,
) -> None:
    """Docs, "Test a host that needs the internet": no ACME server is needed for that."""
    nginx = flake.evaluate("acme").units["nginx.service"]
    assert "acme-selfsigned-a.example.org.service" in " ".join(nginx.setting("Unit", "After"))
    assert not [text for text in nginx.setting("Unit", "Requires") if "acme-" in text]


def test_failed_assertions_are_shown(flake: Flake) -> None:
    with pytest.raises(EvalError, match="Failed assertions:\n- ports must be even"):
        flake.evaluate("asserts")


def test_an_image_is_known_before_its_machine_is_evaluated(flake: Flake) -> None:
    taken_mib: list[int] = []
    with pytest.raises(ImageRefused, match="it is an ISO image"):
        flake.evaluate("iso", refuse_image=True, measured=taken_mib.append)
    assert 50 < taken_mib[0] < 1000


def test_a_host_of_another_system(flake: Flake) -> None:
    host = flake.evaluate("arm")
    assert (host.system, host.backend, host.image) == ("aarch64-linux", "vm", "")


def test_a_host_that_is_built_on_another_platform_is_started_there(flake: Flake) -> None:
    host = flake.evaluate("cross")
    assert (host.system, host.guest_system, host.backend) == ("x86_64-linux", "aarch64-linux", "vm")
    text = subprocess.run(
        ["nix-store", "--query", "--requisites", host.derivation],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
    # One that is compiled for the guest has its platform in its name.
    assert set(re.findall(r"-qemu-(\S*?)[\d.]+\.drv", text)) == {""}


def test_member_of_a_cluster(flake: Flake) -> None:
    host = flake.evaluate("router", backend="member")
    found = {card.name: card for card in host.cards}
    assert sorted(found) == ["eno2", "enp3s0", "wan0"]
    assert found["enp3s0"].addresses == ("10.0.0.1/24",)
    assert [(v.name, v.id, v.addresses) for v in found["enp3s0"].vlans] == [
        ("office", 7, ("10.7.0.1/24",))
    ]
    assert found["wan0"].hardware == "02:11:22:33:44:55"
    assert host.derivation.endswith(".drv") and host.backend == "vm"
    # The same host as a VM of its own knows its cards too, and is another machine.
    alone = flake.evaluate("router", backend="vm")
    assert alone.cards == host.cards and alone.derivation != host.derivation


def test_member_with_networkd(flake: Flake) -> None:
    host = flake.evaluate("networkd", backend="member")
    assert [(card.name, card.addresses) for card in host.cards] == [("lan0", ("10.0.0.2/24",))]
    assert host.orphan_vlans == ("lost",)
    assert host.derivation.endswith(".drv")


@pytest.mark.parametrize("name", ["etc-overlay", "perlless"])
def test_a_host_without_scripts_in_its_activation(flake: Flake, name: str) -> None:
    config = flake.evaluate(name, backend="vm", option_paths=["system.etc.overlay.enable"])
    assert config.option("system.etc.overlay.enable").value is True
    assert "pytest-nixos-channel.service" in "".join(config.changed)
    assert config.unreadable == ()


@pytest.mark.parametrize("backend", ["vm", "container"])
def test_a_host_whose_users_sysusers_makes_gets_secrets(flake: Flake, backend: str) -> None:
    host = flake.evaluate(
        "sysusers", backend=backend, option_paths=["system.activationScripts", "age.secrets"]
    )
    assert host.derivation.endswith(".drv")
    assert host.users["alice"].lingers
    assert not host.users["root"].lingers
    changed = host.changed["system.activationScripts"][1]
    assert changed["users"] == ""
    assert "pytestNixosSecrets" in changed
