# Declarative containers, started by systemd-nspawn. Only `path` names what runs in one.
{ config, lib, pkgs, ... }:
let
  inherit (lib) mkOption types;
  flag = default: mkOption { type = types.bool; inherit default; };
  container = {
    options = {
      path = mkOption { type = types.path; };
      autoStart = flag false;
      ephemeral = flag false;
      privateNetwork = flag false;
      privateUsers = mkOption { type = types.either types.ints.u32 (types.enum [ "no" "identity" "pick" ]); default = "no"; };
      extraFlags = mkOption { type = types.listOf types.str; default = [ ]; };
    };
  };
  unit = name: cfg: lib.nameValuePair "container@${name}" {
    description = "Container '${name}'";
    wantedBy = lib.optional cfg.autoStart "machines.target";
    wants = [ "network.target" ];
    after = [ "network.target" ];
    path = [ pkgs.coreutils pkgs.iproute2 ];
    environment.SYSTEMD_NSPAWN_UNIFIED_HIERARCHY = "1";
    script = ''
      root=/var/lib/nixos-containers/${name}
      mkdir -p -m 0755 $root/etc $root/var/lib $root/nix/var/nix $root/usr /nix/var/nix/profiles/per-container/${name}
      mkdir -p -m 0700 $root/var/lib/private $root/root
      touch $root/etc/os-release $root/etc/machine-id
      exec ${pkgs.systemd}/bin/systemd-nspawn --keep-unit --register=no -M ${name} -D $root \
        ${lib.optionalString cfg.privateNetwork "--private-network"} \
        ${lib.optionalString (cfg.privateUsers != "no") "--private-users=${toString cfg.privateUsers} --private-users-ownership=auto"} \
        ${lib.escapeShellArgs cfg.extraFlags} --notify-ready=yes --kill-signal=SIGRTMIN+3 --bind-ro=/nix/store \
        --bind=/nix/var/nix/profiles/per-container/${name}:/nix/var/nix/profiles \
        ${cfg.path}/init
    '';
    serviceConfig = {
      Type = "notify";
      NotifyAccess = "all";
      Slice = "machine.slice";
      Delegate = true;
      KillMode = "mixed";
      KillSignal = "TERM";
      TimeoutStartSec = "1min";
      Restart = "on-failure";
      SuccessExitStatus = "133";
      DevicePolicy = "closed";
    };
  };
in
{
  options.containers = mkOption { type = types.attrsOf (types.submodule container); default = { }; };
  options.boot.enableContainers = flag (config.containers != { });
  config = lib.mkIf (config.containers != { }) {
    systemd.services = lib.mapAttrs' unit config.containers;
    systemd.targets.machines.wantedBy = [ "multi-user.target" ];
  };
}
