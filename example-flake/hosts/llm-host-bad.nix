# The twin of llm-host, in which each statement breaks what its comment names, and nothing else. All of it evaluates and builds: what
# is wrong here shows only in the running machine, as it does on real hosts.
{ lib, pkgs, ... }:
let
  # What somebody typed as root and never wrote down.
  byHand = description: after: command: {
    inherit description after;
    wantedBy = [ "multi-user.target" ];
    path = [ pkgs.audit pkgs.nftables pkgs.procps pkgs.util-linux ];
    serviceConfig = { Type = "oneshot"; RemainAfterExit = true; };
    script = command;
  };
  # `systemctl set-property` and `systemctl edit` leave their traces in this folder: it wins over the units that NixOS writes.
  dropIn = unit: text: { environment.etc."systemd/system.control/${unit}.d/50-by-hand.conf".text = text; };
in
{
  imports = [
    ./llm-host.nix

    # breaks: SBX-D01 (systemd lets the service do what the host forbids)
    (dropIn "notes.service" ''
      [Service]
      ProtectKernelTunables=no
    '')
    # breaks: OLL-003 (Ollama listens on every address, the host declares the loopback)
    (dropIn "ollama.service" ''
      [Service]
      Environment=OLLAMA_HOST=0.0.0.0:11434
    '')
    # breaks: OLL-004 (the declared model is never fetched)
    (dropIn "ollama-model-loader.service" ''
      [Service]
      ExecStart=
      ExecStart=${pkgs.coreutils}/bin/true
    '')
  ];

  networking.hostName = "llm-host-bad";

  # breaks: FW-006 (open, and nothing listens behind it)
  networking.firewall.allowedTCPPorts = [ 8443 ];
  # breaks: FW-003 (accepted, and nowhere declared)
  systemd.services.open-tcp = byHand "Let TCP 47001 in" [ "nftables.service" ] "nft add rule inet nixos-fw input-allow tcp dport 47001 accept";
  # breaks: FW-008 (the same by UDP)
  systemd.services.open-udp = byHand "Let UDP 47002 in" [ "nftables.service" ] "nft add rule inet nixos-fw input-allow udp dport 47002 accept";
  # breaks: FW-002 and FW-005 (declared open, and refused)
  systemd.services.close-tcp = byHand "Keep TCP 9100 out" [ "nftables.service" ] "nft insert rule inet nixos-fw input-allow tcp dport 9100 drop";

  # breaks: SYS-001 (a later file of the same kind wins)
  environment.etc."sysctl.d/99-local.conf".text = "vm.swappiness = 60\n";
  # breaks: SYS-001 and SYSCTL-002 [sysctl] (changed at run time)
  systemd.services.loosen = byHand "Show everybody the kernel's messages" [ "systemd-sysctl.service" ] "sysctl -w kernel.dmesg_restrict=0";

  environment.etc."systemd/zram-generator.conf.d/50-by-hand.conf" = {
    # The generator passes over symbolic links in this folder, so the file has to be one of its own.
    mode = "0644";
    text = lib.concatStringsSep "\n" [
      "[zram0]"
      "compression-algorithm = lz4" # breaks: ZRAM-002
      "zram-size = ram / 10" # breaks: ZRAM-003
      "swap-priority = 5" # breaks: ZRAM-004
      ""
    ];
  };

  # breaks: SBX-D03 (it looks hardened, and runs as root with every capability)
  systemd.services.report = {
    description = "Report";
    wantedBy = [ "multi-user.target" ];
    serviceConfig = {
      ExecStart = "${pkgs.coreutils}/bin/sleep infinity";
      ProtectSystem = "strict";
      PrivateTmp = true;
      ProtectHome = true;
      ProtectClock = true;
    };
  };

  # breaks: BOOT-001 (it fails at each boot; no switch or rollback is to blame for it)
  systemd.services.backup = {
    description = "Backup";
    wantedBy = [ "multi-user.target" ];
    serviceConfig = { Type = "oneshot"; ExecStart = "${pkgs.coreutils}/bin/false"; };
  };
  # breaks: BOOT-004 and UNIT-010 (it starts over for ever)
  systemd.services.restless = {
    description = "Restless";
    wantedBy = [ "multi-user.target" ];
    startLimitIntervalSec = 0;
    serviceConfig = { ExecStart = "${pkgs.coreutils}/bin/false"; Restart = "always"; RestartSec = 3; };
  };

  # What only a kernel of its own can show; the kind of observation by which it is found stands in brackets.
  # breaks: CMDLINE-011 [kernel-param] (programs read each other's memory)
  boot.kernelParams = [ "mitigations=off" ];
  # breaks: MODULE-002 [module] (any image with a rare file system goes through a rarely tested parser)
  boot.extraModprobeConfig = lib.mkForce "";
  # breaks: FS-007 [mount] (root's programs may change what is installed)
  systemd.services.open-store = byHand "Let root write to the store" [ "local-fs.target" ] "mount -o remount,bind,rw /nix/store";
  # breaks: AUD-002 [audit] (the rules are declared, and gone)
  systemd.services.forget-rules = byHand "Stop watching" [ "auditd.service" ] "auditctl -D";
  # breaks: TIME-004 [clock] (compared every hour)
  services.timesyncd.extraConfig = lib.mkForce "PollIntervalMaxSec=3600";

  # breaks: SSH-001
  services.openssh.settings.PermitRootLogin = lib.mkForce "yes";
  # breaks: SSH-002
  services.openssh.settings.PasswordAuthentication = lib.mkForce true;
}
