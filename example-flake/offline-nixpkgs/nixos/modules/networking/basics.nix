# Host name, name resolution and interfaces.
{ config, lib, pkgs, ... }:
let
  inherit (lib) mkOption types;
  cfg = config.networking;
  flag = default: mkOption { type = types.bool; inherit default; };
  address = types.submodule { options = { address = mkOption { type = types.str; }; prefixLength = mkOption { type = types.int; }; }; };
  interface = { name, ... }: {
    options = {
      name = mkOption { type = types.str; default = name; };
      useDHCP = mkOption { type = types.nullOr types.bool; default = null; };
      ipv4.addresses = mkOption { type = types.listOf address; default = [ ]; };
      ipv4.routes = mkOption { type = types.listOf types.attrs; default = [ ]; };
      ipv6.addresses = mkOption { type = types.listOf address; default = [ ]; };
      ipv6.routes = mkOption { type = types.listOf types.attrs; default = [ ]; };
      macAddress = mkOption { type = types.nullOr types.str; default = null; };
      mtu = mkOption { type = types.nullOr types.int; default = null; };
      virtual = flag false;
      wakeOnLan.enable = flag false;
      tempAddress = mkOption { type = types.str; default = "default"; };
      proxyARP = flag false;
    };
  };
  static = lib.filter (i: i.ipv4.addresses ++ i.ipv6.addresses != [ ]) (lib.attrValues cfg.interfaces);
  # As in NixOS: udev has given the card its name by then. A container's link is there from the start.
  deviceOf = name: lib.optional (!config.boot.isContainer) "sys-subsystem-net-devices-${name}.device";
  fqdn = if cfg.domain == null || cfg.domain == "" then cfg.hostName else "${cfg.hostName}.${cfg.domain}";
in
{
  options.networking = {
    hostName = mkOption { default = config.system.nixos.distroId; type = types.strMatching "^$|^[[:alnum:]]([[:alnum:]_-]{0,61}[[:alnum:]])?$"; };
    domain = mkOption { type = types.nullOr types.str; default = null; };
    fqdn = mkOption { type = types.str; readOnly = true; default = fqdn; };
    hostId = mkOption { type = types.nullOr types.str; default = null; };
    hosts = mkOption { type = types.attrsOf (types.listOf types.str); default = { }; };
    extraHosts = mkOption { type = types.lines; default = ""; };
    enableIPv6 = flag true;
    nameservers = mkOption { type = types.listOf types.str; default = [ ]; };
    search = mkOption { type = types.listOf types.str; default = [ ]; };
    defaultGateway = mkOption { type = types.nullOr types.unspecified; default = null; };
    defaultGateway6 = mkOption { type = types.nullOr types.unspecified; default = null; };
    interfaces = mkOption { type = types.attrsOf (types.submodule interface); default = { }; };
    localCommands = mkOption { type = types.lines; default = ""; };
    useNetworkd = flag false;
    useHostResolvConf = flag false;
    usePredictableInterfaceNames = flag true;
    networkmanager.enable = flag false;
    wireless.enable = flag false;
    tempAddresses = mkOption { type = types.enum [ "default" "enabled" "disabled" ]; default = if cfg.enableIPv6 then "default" else "disabled"; };
    timeServers = mkOption { type = types.listOf types.str; default = [ "0.nixos.pool.ntp.org" "1.nixos.pool.ntp.org" "2.nixos.pool.ntp.org" "3.nixos.pool.ntp.org" ]; };
    proxy.default = mkOption { type = types.nullOr types.str; default = null; };
  } // lib.genAttrs [ "bridges" "vlans" "bonds" "macvlans" "sits" "wlanInterfaces" ] (_: mkOption { type = types.attrsOf types.attrs; default = { }; });

  config = {
    networking.hosts = {
      "127.0.0.1" = [ "localhost" ];
      "::1" = lib.optional cfg.enableIPv6 "localhost";
      "127.0.0.2" = lib.mkIf (cfg.hostName != "") (lib.unique [ fqdn cfg.hostName ]);
    };
    environment.etc = {
      hostname = lib.mkIf (cfg.hostName != "") { text = cfg.hostName + "\n"; };
      hosts.text = lib.concatStrings (lib.mapAttrsToList (ip: names: lib.optionalString (names != [ ]) "${ip} ${lib.concatStringsSep " " names}\n") cfg.hosts) + cfg.extraHosts;
      "host.conf".text = "multi on\n";
      "nsswitch.conf".text = ''
        passwd:    files systemd
        group:     files [success=merge] systemd
        shadow:    files systemd
        sudoers:   files

        hosts:     mymachines ${lib.optionalString config.services.resolved.enable "resolve [!UNAVAIL=return] "}files myhostname dns
        networks:  files

        ethers:    files
        services:  files
        protocols: files
        rpc:       files
      '';
      "resolv.conf" = lib.mkIf (cfg.nameservers != [ ]) { text = lib.concatMapStrings (n: "nameserver ${n}\n") cfg.nameservers; };
    };
    boot.kernel.sysctl = { "net.ipv4.conf.all.forwarding" = lib.mkDefault false; } // lib.optionalAttrs (!cfg.enableIPv6) { "net.ipv6.conf.all.disable_ipv6" = true; "net.ipv6.conf.default.disable_ipv6" = true; };
    systemd.services = lib.listToAttrs (map
      (i: lib.nameValuePair "network-addresses-${i.name}" {
        description = "Address configuration of ${i.name}";
        wantedBy = [ "network.target" "multi-user.target" ];
        before = [ "network.target" ];
        after = [ "network-pre.target" ] ++ deviceOf i.name;
        bindsTo = deviceOf i.name;
        path = [ pkgs.iproute2 ];
        stopIfChanged = false;
        serviceConfig = { Type = "oneshot"; RemainAfterExit = true; };
        script = ''
          ip link set dev ${i.name} up
          ${lib.concatMapStrings (a: "ip addr replace ${a.address}/${toString a.prefixLength} dev ${i.name}\n") (i.ipv4.addresses ++ i.ipv6.addresses)}
        '';
      })
      static) // lib.mapAttrs'
      (name: vlan: lib.nameValuePair "${name}-netdev" {
        description = "VLAN Interface ${name}";
        wantedBy = [ "network.target" "sys-subsystem-net-devices-${name}.device" ];
        before = [ "network.target" "network-addresses-${name}.service" ];
        after = [ "network-pre.target" ] ++ deviceOf vlan.interface;
        bindsTo = deviceOf vlan.interface;
        path = [ pkgs.iproute2 ];
        serviceConfig = { Type = "oneshot"; RemainAfterExit = true; };
        script = ''
          ip link show dev "${name}" >/dev/null 2>&1 && ip link delete dev "${name}"
          ip link add link "${vlan.interface}" name "${name}" type vlan id "${toString vlan.id}"
          ip link set dev "${vlan.interface}" up
          ip link set dev "${name}" up
        '';
      })
      cfg.vlans // lib.optionalAttrs (cfg.localCommands != "" || cfg.defaultGateway != null) {
      network-setup = {
        description = "Networking Setup";
        wantedBy = [ "network.target" "multi-user.target" ];
        after = map (i: "network-addresses-${i.name}.service") static;
        path = [ pkgs.iproute2 ];
        serviceConfig = { Type = "oneshot"; RemainAfterExit = true; };
        script = ''
          ${lib.optionalString (cfg.defaultGateway != null) "ip route replace default via ${cfg.defaultGateway.address or cfg.defaultGateway}"}
          ${cfg.localCommands}
          :
        '';
      };
    };
  };
}
