# `pkgs.testers.runNixOSTest`, as far as evaluation goes: nodes as nixos/lib/testing makes them, with the root shell of
# nixos/modules/testing/test-instrumentation.nix. The stand-in has no test driver: its `driver` holds what one is given.
{ lib, pkgs }:
test:
let
  backdoor = { config, lib, pkgs, ... }: {
    systemd.services.backdoor = {
      wantedBy = [ "multi-user.target" ];
      requires = [ "dev-hvc0.device" "dev-ttyS0.device" ];
      after = [ "dev-hvc0.device" "dev-ttyS0.device" ];
      path = [ pkgs.coreutils ];
      script = ''
        export USER=root
        export HOME=/root
        if [[ -e /etc/profile ]]; then source /etc/profile; fi
        export PAGER=
        cd /tmp
        exec < /dev/hvc0 > /dev/hvc0
        while ! exec 2> /dev/ttyS0; do sleep 0.1; done
        stty -F /dev/hvc0 raw -echo
        echo "Spawning backdoor root shell..."
        PS1= exec ${pkgs.bash}/bin/bash --norc /dev/hvc0
      '';
      serviceConfig.KillSignal = "SIGHUP";
    };
    systemd.services."serial-getty@ttyS0".enable = false;
    systemd.services."serial-getty@hvc0".enable = false;
  };

  # As nixos/lib/testing/network.nix does: a card on each of the test's own networks, beside the user network.
  network = number: { config, ... }: {
    config = {
      virtualisation.vlans = lib.mkDefault [ 1 ];
      virtualisation.qemu.options = lib.concatMap (vlan: [
        "-device virtio-net-pci,netdev=vlan${toString vlan},mac=52:54:00:12:0${toString vlan}:0${toString number}"
        ''-netdev vde,id=vlan${toString vlan},sock="$QEMU_VDE_SOCKET_${toString vlan}"''
      ]) config.virtualisation.vlans;
      networking.interfaces = lib.listToAttrs (lib.imap1 (index: vlan: lib.nameValuePair "eth${toString index}" {
        ipv4.addresses = [ { address = "192.168.${toString vlan}.${toString number}"; prefixLength = 24; } ];
      }) config.virtualisation.vlans);
    };
  };

  names = lib.attrNames test.nodes;

  nodes = lib.listToAttrs (lib.imap1 (number: name: lib.nameValuePair name (lib.nixosSystem {
    modules = [
      ../modules/virtualisation/qemu-vm.nix
      backdoor
      (network number)
      { networking.hostName = lib.mkDefault name; virtualisation.host.pkgs = pkgs; }
      (test.defaults or { })
      test.nodes.${name}
    ];
  }).config) names);

  config = {
    inherit (test) name;
    inherit nodes;
    hostPkgs = pkgs;
    testScriptString = if lib.isFunction test.testScript then test.testScript { inherit nodes; } else test.testScript;
    passthru = (test.passthru or { }) // { inherit nodes config driver; };
  };

  driver = pkgs.runCommand "nixos-test-driver-${test.name}"
    {
      testScript = config.testScriptString;
      startScripts = map (node: "${node.system.build.vm}/bin/run-${node.system.name}-vm") (lib.attrValues nodes);
    }
    ''
      mkdir -p $out
      printf %s "$testScript" > $out/test-script
      printf '%s\n' $startScripts > $out/start-scripts
    '';
in
pkgs.runCommand "vm-test-run-${test.name}"
  {
    requiredSystemFeatures = [ "nixos-test" "kvm" ];
    inherit (config) passthru;
    inherit driver;
  }
  ''
    echo "the offline stand-in has no test driver" >&2
    exit 1
  ''
