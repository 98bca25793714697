# Addresses by DHCP.
{ config, lib, pkgs, ... }:
let
  inherit (lib) mkOption types;
  cfg = config.networking.dhcpcd;
  wanted = config.networking.useDHCP || lib.any (i: i.useDHCP == true) (lib.attrValues config.networking.interfaces);
  configuration = pkgs.writeText "dhcpcd.conf" ''
    hostname
    option domain_name_servers, domain_name, domain_search
    option classless_static_routes, ntp_servers, interface_mtu
    nohook lookup-hostname
    denyinterfaces ve-* vb-* lo peth* vif* tap* tun* virbr* vnet* vboxnet* sit* ${lib.concatStringsSep " " cfg.denyInterfaces}
    ${lib.optionalString (cfg.allowInterfaces != null) "allowinterfaces ${lib.concatStringsSep " " cfg.allowInterfaces}"}
    noipv4ll
    ${lib.optionalString (!config.networking.enableIPv6) "noipv6"}
    ${cfg.extraConfig}
  '';
in
{
  options.networking.useDHCP = mkOption { type = types.bool; default = true; };
  options.networking.dhcpcd = {
    enable = mkOption { type = types.bool; default = true; };
    persistent = mkOption { type = types.bool; default = false; };
    denyInterfaces = mkOption { type = types.listOf types.str; default = [ ]; };
    allowInterfaces = mkOption { type = types.nullOr (types.listOf types.str); default = null; };
    extraConfig = mkOption { type = types.lines; default = ""; };
    wait = mkOption { type = types.enum [ "background" "any" "ipv4" "ipv6" "both" "if-carrier-up" ]; default = "any"; };
    runHook = mkOption { type = types.lines; default = ""; };
  };
  config = lib.mkIf (cfg.enable && wanted && !config.networking.useNetworkd && !config.boot.isContainer) {
    users.users.dhcpcd = { isSystemUser = true; group = "dhcpcd"; };
    users.groups.dhcpcd = { };
    environment.etc."dhcpcd.exit-hook".text = ''
      ${cfg.runHook}
    '';
    environment.systemPackages = [ pkgs.dhcpcd ];
    systemd.services.dhcpcd = {
      description = "DHCP Client";
      documentation = [ "man:dhcpcd(8)" ];
      wantedBy = [ "multi-user.target" ];
      wants = [ "network.target" ];
      before = [ "network-online.target" ];
      after = [ "network-pre.target" ];
      restartTriggers = [ configuration ];
      # A restart would take the network away from whoever asked for it.
      stopIfChanged = false;
      path = [ pkgs.dhcpcd ];
      unitConfig.ConditionCapability = "CAP_NET_ADMIN";
      serviceConfig = {
        Type = "forking";
        PIDFile = "/run/dhcpcd/pid";
        RuntimeDirectory = "dhcpcd";
        StateDirectory = "dhcpcd";
        ExecStart = "@${pkgs.dhcpcd}/sbin/dhcpcd dhcpcd --quiet ${lib.optionalString cfg.persistent "--persistent "}--background --config ${configuration}";
        ExecReload = "${pkgs.dhcpcd}/sbin/dhcpcd --rebind";
        Restart = "always";
      };
    };
  };
}
