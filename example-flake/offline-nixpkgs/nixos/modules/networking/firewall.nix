# The firewall's options. Two backends read them: nftables.nix and iptables.nix.
{ config, lib, pkgs, ... }:
let
  inherit (lib) mkOption types;
  cfg = config.networking.firewall;
  flag = default: mkOption { type = types.bool; inherit default; };
  text = mkOption { type = types.lines; default = ""; };
  ports = mkOption { type = types.listOf types.port; default = [ ]; apply = list: lib.unique (lib.naturalSort list); };
  ranges = mkOption { type = types.listOf (types.attrsOf types.port); default = [ ]; };
  opened = { allowedTCPPorts = ports; allowedTCPPortRanges = ranges; allowedUDPPorts = ports; allowedUDPPortRanges = ranges; };
in
{
  imports = [ ./nftables.nix ./iptables.nix ];

  options.networking.firewall = opened // {
    enable = flag true;
    package = mkOption { type = types.package; default = if config.networking.nftables.enable then pkgs.nftables else pkgs.iptables; };
    backend = mkOption { type = types.enum [ "iptables" "nftables" "firewalld" ]; default = if config.networking.nftables.enable then "nftables" else "iptables"; };
    logRefusedConnections = flag true;
    logRefusedPackets = flag false;
    logRefusedUnicastsOnly = flag true;
    rejectPackets = flag false;
    trustedInterfaces = mkOption { type = types.listOf types.str; default = [ ]; };
    allowPing = flag true;
    pingLimit = mkOption { type = types.nullOr (types.separatedString " "); default = null; };
    checkReversePath = mkOption { type = types.either types.bool (types.enum [ "strict" "loose" ]); default = true; };
    logReversePathDrops = flag false;
    filterForward = flag false;
    connectionTrackingModules = mkOption { type = types.listOf types.str; default = [ ]; };
    autoLoadConntrackHelpers = flag false;
    extraPackages = mkOption { type = types.listOf types.package; default = [ ]; };
    interfaces = mkOption { type = types.attrsOf (types.submodule { options = opened; }); default = { }; };
    allInterfaces = mkOption { internal = true; visible = false; type = types.attrsOf (types.submodule { options = opened; }); default = { default = lib.mapAttrs (name: _: cfg.${name}) opened; } // cfg.interfaces; };
    extraCommands = text;
    extraStopCommands = text;
    extraInputRules = text;
    extraForwardRules = text;
    extraReversePathFilterRules = text;
  };

  config = lib.mkIf cfg.enable {
    assertions = [{ assertion = cfg.filterForward -> config.networking.nftables.enable; message = "filterForward only works with the nftables based firewall"; }];
    networking.firewall.trustedInterfaces = [ "lo" ];
    environment.systemPackages = [ cfg.package ] ++ cfg.extraPackages;
    boot.kernelModules = map (name: "nf_conntrack_${name}") cfg.connectionTrackingModules;
  };
}
