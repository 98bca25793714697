# systemd-networkd: the sections of network files that hosts use most.
{ config, lib, ... }:
let
  inherit (lib) mkOption types;
  cfg = config.systemd.network;
  value = types.oneOf [ types.bool types.int types.str (types.listOf (types.either types.str types.int)) ];
  section = mkOption { type = types.attrsOf value; default = { }; };
  words = mkOption { type = types.listOf types.str; default = [ ]; };
  network = {
    options = {
      enable = mkOption { type = types.bool; default = true; };
      matchConfig = section;
      linkConfig = section;
      networkConfig = section;
      DHCP = mkOption { type = types.nullOr types.str; default = null; };
      address = words;
      gateway = words;
      vlan = words;
      dns = words;
      domains = words;
      extraConfig = mkOption { type = types.lines; default = ""; };
    };
  };
  netdev = { options = { enable = mkOption { type = types.bool; default = true; }; netdevConfig = section; vlanConfig = section; extraConfig = mkOption { type = types.lines; default = ""; }; }; };
  link = { options = { enable = mkOption { type = types.bool; default = true; }; matchConfig = section; linkConfig = section; extraConfig = mkOption { type = types.lines; default = ""; }; }; };
  show = v: if v == true then "yes" else if v == false then "no" else toString v;
  lines = settings: lib.concatStrings (lib.mapAttrsToList (name: v: lib.concatMapStrings (one: "${name}=${show one}\n") (lib.toList v)) settings);
  part = name: text: lib.optionalString (text != "") "[${name}]\n${text}\n";
  render = n: part "Match" (lines n.matchConfig) + part "Link" (lines n.linkConfig)
    + part "Network" (lines n.networkConfig + lines ({ Address = n.address; Gateway = n.gateway; DNS = n.dns; Domains = n.domains; VLAN = n.vlan; } // lib.optionalAttrs (n.DHCP != null) { inherit (n) DHCP; }))
    + n.extraConfig;
in
{
  options.systemd.network = {
    enable = mkOption { type = types.bool; default = false; };
    networks = mkOption { type = types.attrsOf (types.submodule network); default = { }; };
    netdevs = mkOption { type = types.attrsOf (types.submodule netdev); default = { }; };
    links = mkOption { type = types.attrsOf (types.submodule link); default = { }; };
    wait-online.enable = mkOption { type = types.bool; default = true; };
  };
  # udev reads .link files whether networkd runs or not.
  config = lib.mkMerge [{ environment.etc = lib.mapAttrs' (name: l: lib.nameValuePair "systemd/network/${name}.link" { text = part "Match" (lines l.matchConfig) + part "Link" (lines l.linkConfig) + l.extraConfig; }) (lib.filterAttrs (_: l: l.enable) cfg.links); } (lib.mkIf config.networking.useNetworkd {
    systemd.network.enable = true;
    services.resolved.enable = lib.mkDefault true;
  }) (lib.mkIf cfg.enable {
    systemd.additionalUpstreamSystemUnits = [ "systemd-networkd.service" "systemd-networkd.socket" ];
    systemd.services.systemd-networkd = { wantedBy = [ "multi-user.target" ]; overrideStrategy = "asDropin"; path = lib.mkForce [ ]; };
    environment.etc = lib.mapAttrs' (name: n: lib.nameValuePair "systemd/network/${name}.network" { text = render n; }) (lib.filterAttrs (_: n: n.enable) cfg.networks)
      // lib.mapAttrs' (name: n: lib.nameValuePair "systemd/network/${name}.netdev" { text = part "NetDev" (lines n.netdevConfig) + part "VLAN" (lines n.vlanConfig) + n.extraConfig; }) (lib.filterAttrs (_: n: n.enable) cfg.netdevs);
  })];
}
