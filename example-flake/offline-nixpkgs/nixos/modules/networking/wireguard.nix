# WireGuard by units of its own: one service an interface, one a peer, as nixpkgs' networking.wireguard has them; and networking.wg-quick.
{ config, lib, pkgs, ... }:
let
  inherit (lib) mkOption types;
  flag = mkOption { type = types.bool; default = false; };
  text = mkOption { type = types.nullOr types.str; default = null; };
  number = mkOption { type = types.nullOr types.int; default = null; };
  words = mkOption { type = types.listOf types.str; default = [ ]; };
  commands = mkOption { type = types.lines; default = ""; };
  key = { privateKey = text; privateKeyFile = text; generatePrivateKeyFile = flag; listenPort = number; mtu = number; };
  peer = { publicKey = mkOption { type = types.str; }; presharedKey = text; presharedKeyFile = text; allowedIPs = words; endpoint = text; persistentKeepalive = number; };
  scriptedPeer = self: {
    options = peer // {
      name = mkOption { type = types.str; default = builtins.replaceStrings [ "/" "-" " " "+" "=" ] [ "-" "\\x2d" "\\x20" "\\x2b" "\\x3d" ] self.config.publicKey; };
    };
  };
  scripted = {
    options = key // {
      ips = words;
      table = mkOption { type = types.str; default = "main"; };
      allowedIPsAsRoutes = mkOption { type = types.bool; default = true; };
      preSetup = commands;
      postSetup = commands;
      postShutdown = commands;
      peers = mkOption { type = types.listOf (types.submodule scriptedPeer); default = [ ]; };
    };
  };
  quick = {
    options = key // {
      address = words;
      dns = words;
      table = text;
      configFile = text;
      autostart = mkOption { type = types.bool; default = true; };
      peers = mkOption { type = types.listOf (types.submodule { options = peer; }); default = [ ]; };
    };
  };

  cfg = config.networking;
  interfaces = cfg.wireguard.interfaces;
  module = lib.optionalString (!config.boot.isContainer) "modprobe wireguard || true\n";
  once = { Type = "oneshot"; RemainAfterExit = true; };
  lines = lib.concatMapStrings (line: "${line}\n");
  given = name: value: lib.optional (value != null) "${name} \"${toString value}\"";
  peerUnit = name: one: "wireguard-${name}-peer-${one.name}";

  interfaceService = name: i: lib.nameValuePair "wireguard-${name}" {
    description = "WireGuard Tunnel - ${name}";
    after = [ "network-pre.target" ];
    wants = [ "network.target" ];
    before = [ "network.target" ];
    environment.DEVICE = name;
    path = [ pkgs.kmod pkgs.iproute2 pkgs.wireguard-tools ];
    serviceConfig = once;
    script = ''
      ${module}${i.preSetup}
      ip link add dev "${name}" type wireguard
      ${lib.optionalString (i.mtu != null) "ip link set \"${name}\" mtu ${toString i.mtu}"}
      ${lines (map (ip: "ip address add \"${ip}\" dev \"${name}\"") i.ips)}
      wg set "${name}" private-key "${if i.privateKeyFile != null then i.privateKeyFile else pkgs.writeText "wg-key" i.privateKey}" ${toString (given "listen-port" i.listenPort)}
      ip link set up dev "${name}"
      ${i.postSetup}
    '';
    postStop = ''
      ip link del dev "${name}"
      ${i.postShutdown}
    '';
  };
  keyService = name: i: lib.nameValuePair "wireguard-${name}-key" {
    description = "WireGuard Tunnel - ${name} - Key Generator";
    wantedBy = [ "wireguard-${name}.service" ];
    requiredBy = [ "wireguard-${name}.service" ];
    before = [ "wireguard-${name}.service" ];
    path = [ pkgs.wireguard-tools ];
    serviceConfig = once;
    script = ''
      mkdir -p --mode 0755 "${dirOf i.privateKeyFile}"
      [ -f "${i.privateKeyFile}" ] || (umask 077; wg genkey > "${i.privateKeyFile}")
    '';
  };
  peerService = name: i: one:
    let
      shared = if one.presharedKey != null then pkgs.writeText "wg-psk" one.presharedKey else one.presharedKeyFile;
      ips = lib.concatStringsSep "," one.allowedIPs;
    in
    lib.nameValuePair (peerUnit name one) {
      description = "WireGuard Peer - ${name} - ${one.name}";
      requires = [ "wireguard-${name}.service" ];
      after = [ "wireguard-${name}.service" "network-online.target" ];
      wants = [ "network-online.target" ];
      wantedBy = [ "wireguard-${name}.service" ];
      environment = { DEVICE = name; WG_ENDPOINT_RESOLUTION_RETRIES = "infinity"; };
      path = [ pkgs.iproute2 pkgs.wireguard-tools ];
      serviceConfig = once;
      script = ''
        wg set ${name} peer "${one.publicKey}" ${toString (given "preshared-key" shared ++ given "endpoint" one.endpoint ++ given "persistent-keepalive" one.persistentKeepalive ++ lib.optional (one.allowedIPs != [ ]) "allowed-ips \"${ips}\"")}
        ${lib.optionalString i.allowedIPsAsRoutes (lines (map (ip: "ip route replace \"${ip}\" dev \"${name}\" table \"${i.table}\"") one.allowedIPs))}
      '';
      postStop = ''
        wg set "${name}" peer "${one.publicKey}" remove
        ${lib.optionalString i.allowedIPsAsRoutes (lines (map (ip: "ip route delete \"${ip}\" dev \"${name}\" table \"${i.table}\"") one.allowedIPs))}
      '';
    };
  target = name: i: lib.nameValuePair "wireguard-${name}" rec {
    description = "WireGuard Tunnel - ${name}";
    wantedBy = [ "multi-user.target" ];
    wants = [ "wireguard-${name}.service" ] ++ map (one: "${peerUnit name one}.service") i.peers;
    after = wants;
  };

  quickFile = name: i:
    let
      setting = name: value: lib.optional (value != null) "${name} = ${toString value}";
      read = file: "<(cat ${file})";
      after = lib.optional (i.privateKeyFile != null) "wg set ${name} private-key ${read i.privateKeyFile}"
        ++ lib.concatMap (one: lib.optional (one.presharedKeyFile != null) "wg set ${name} peer ${one.publicKey} preshared-key ${read one.presharedKeyFile}") i.peers;
    in
    pkgs.writeTextFile {
      name = "config-${name}";
      destination = "/${name}.conf";
      text = "[interface]\n" + lines (
        map (a: "Address = ${a}") i.address ++ setting "Table" i.table ++ setting "MTU" i.mtu ++ setting "PrivateKey" i.privateKey ++ setting "ListenPort" i.listenPort
        ++ lib.optional (after != [ ]) "PostUp = ${pkgs.writeShellScript "postUp.sh" (lines after)}"
      ) + lib.concatMapStrings
        (one: "[Peer]\n" + lines ([ "PublicKey = ${one.publicKey}" ] ++ setting "PresharedKey" one.presharedKey ++ setting "Endpoint" one.endpoint
          ++ setting "PersistentKeepalive" one.persistentKeepalive ++ lib.optional (one.allowedIPs != [ ]) "AllowedIPs = ${lib.concatStringsSep "," one.allowedIPs}"))
        i.peers;
    };
  quickService = name: i: lib.nameValuePair "wg-quick-${name}" {
    description = "wg-quick WireGuard Tunnel - ${name}";
    requires = [ "network-online.target" ];
    after = [ "network.target" "network-online.target" ];
    wantedBy = lib.optional i.autostart "multi-user.target";
    environment.DEVICE = name;
    # nixpkgs wraps the script with the rest.
    path = [ pkgs.wireguard-tools pkgs.kmod pkgs.iproute2 pkgs.nftables pkgs.procps ];
    serviceConfig = once // { PrivateTmp = true; };
    script = "${module}wg-quick up ${if i.configFile != null then i.configFile else "${quickFile name i}/${name}.conf"}";
    preStop = "wg-quick down ${if i.configFile != null then i.configFile else "${quickFile name i}/${name}.conf"}";
  };

  oneKey = option: name: i: {
    assertion = (i.privateKey != null) != (i.privateKeyFile != null);
    message = "Either ${option}.${name}.privateKey or ${option}.${name}.privateKeyFile must be set.";
  };
in
{
  options.networking = {
    wireguard.enable = mkOption { type = types.bool; default = interfaces != { }; };
    wireguard.interfaces = mkOption { type = types.attrsOf (types.submodule scripted); default = { }; };
    wg-quick.interfaces = mkOption { type = types.attrsOf (types.submodule quick); default = { }; };
  };
  config = lib.mkMerge [
    (lib.mkIf cfg.wireguard.enable {
      assertions = lib.mapAttrsToList (oneKey "networking.wireguard.interfaces") interfaces;
      boot.kernelModules = [ "wireguard" ];
      environment.systemPackages = [ pkgs.wireguard-tools ];
      systemd.services = lib.mapAttrs' interfaceService interfaces
        // lib.listToAttrs (lib.concatLists (lib.mapAttrsToList (name: i: map (peerService name i) i.peers) interfaces))
        // lib.mapAttrs' keyService (lib.filterAttrs (_: i: i.generatePrivateKeyFile) interfaces);
      systemd.targets = lib.mapAttrs' target interfaces;
    })
    (lib.mkIf (cfg.wg-quick.interfaces != { }) {
      environment.systemPackages = [ pkgs.wireguard-tools ];
      systemd.services = lib.mapAttrs' quickService cfg.wg-quick.interfaces;
    })
  ];
}
