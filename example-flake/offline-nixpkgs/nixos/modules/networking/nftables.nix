# The firewall as the table `inet nixos-fw`.
{ config, lib, pkgs, ... }:
let
  inherit (lib) mkOption types;
  cfg = config.networking.nftables;
  fw = config.networking.firewall;
  flag = default: mkOption { type = types.bool; inherit default; };

  table = { name, ... }: {
    options = {
      enable = flag true;
      name = mkOption { type = types.str; default = name; };
      content = mkOption { type = types.lines; };
      family = mkOption { type = types.enum [ "ip" "ip6" "inet" "arp" "bridge" "netdev" ]; };
    };
  };
  enabled = lib.filterAttrs (_: t: t.enable) cfg.tables;

  set = ports: ranges: lib.concatStringsSep ", " (map toString ports ++ map (r: "${toString r.from}-${toString r.to}") ranges);
  open = interface: protocol: ports: ranges:
    lib.optionalString (ports ++ ranges != [ ])
      "${lib.optionalString (interface != "default") "iifname \"${interface}\" "}${protocol} dport { ${set ports ranges} } accept\n";
  trusted = lib.concatMapStringsSep ", " (i: "\"${i}\"") fw.trustedInterfaces;

  rules = ''
    ${lib.optionalString (fw.checkReversePath != false) ''
      chain rpfilter {
        type filter hook prerouting priority mangle + 10; policy drop;
        meta nfproto ipv4 udp sport . udp dport { 67 . 68, 68 . 67 } accept comment "DHCPv4 client/server"
        meta ipsec exists accept comment "decrypted packets from an IPsec VPN"
        fib saddr . mark ${lib.optionalString (fw.checkReversePath != "loose") ". iif "}oif exists accept
        jump rpfilter-allow
        ${lib.optionalString fw.logReversePathDrops ''log level info prefix "rpfilter drop: "''}
      }
      chain rpfilter-allow {
        ${fw.extraReversePathFilterRules}
      }
    ''}
    chain input {
      type filter hook input priority filter; policy drop;
      ${lib.optionalString (trusted != "") ''iifname { ${trusted} } accept comment "trusted interfaces"''}
      # Untracked covers a few kinds of ICMPv6.
      ct state vmap { invalid : drop, established : accept, related : accept, new : jump input-allow, untracked : jump input-allow }
      ${lib.optionalString fw.logRefusedConnections ''tcp flags syn / fin,syn,rst,ack log level info prefix "refused connection: "''}
      ${lib.optionalString (fw.logRefusedPackets && !fw.logRefusedUnicastsOnly) ''
        pkttype broadcast log level info prefix "refused broadcast: "
        pkttype multicast log level info prefix "refused multicast: "
      ''}
      ${lib.optionalString fw.logRefusedPackets ''pkttype host log level info prefix "refused packet: "''}
      ${lib.optionalString fw.rejectPackets ''
        meta l4proto tcp reject with tcp reset
        reject
      ''}
    }
    chain input-allow {
      ${lib.concatStrings (lib.mapAttrsToList (name: i: open name "tcp" i.allowedTCPPorts i.allowedTCPPortRanges + open name "udp" i.allowedUDPPorts i.allowedUDPPortRanges) fw.allInterfaces)}
      ${lib.optionalString fw.allowPing ''icmp type echo-request ${lib.optionalString (fw.pingLimit != null) "limit rate ${fw.pingLimit}"} accept comment "allow ping"''}
      icmpv6 type != { nd-redirect, 139 } accept comment "Accept all ICMPv6 messages except redirects and node information queries (type 139).  See RFC 4890, section 4.4."
      ip6 daddr fe80::/64 udp dport 546 accept comment "DHCPv6 client"
      ${fw.extraInputRules}
    }
    ${lib.optionalString fw.filterForward ''
      chain forward {
        type filter hook forward priority filter; policy drop;
        ct state vmap { invalid : drop, established : accept, related : accept, new : jump forward-allow, untracked : jump forward-allow }
      }
      chain forward-allow {
        icmpv6 type != { router-renumbering, 139 } accept
        ${fw.extraForwardRules}
      }
    ''}
  '';

  renew = lib.concatStrings (lib.mapAttrsToList (_: t: "table ${t.family} ${t.name}\ndelete table ${t.family} ${t.name}\n") enabled);
  body = lib.concatStrings (lib.mapAttrsToList (_: t: "table ${t.family} ${t.name} {\n${t.content}\n}\n") enabled);
  deletions = pkgs.writeScript "nftables-deletions" ''
    #!${pkgs.nftables}/bin/nft -f
    ${if cfg.flushRuleset then "flush ruleset" else renew}
    ${cfg.extraDeletions}
  '';
  loaded = pkgs.writeScript "nftables-rules" ''
    #!${pkgs.nftables}/bin/nft -f
    ${if cfg.flushRuleset then "flush ruleset" else renew}
    ${body}
    ${cfg.ruleset}
    ${lib.optionalString (cfg.rulesetFile != null) "include \"${cfg.rulesetFile}\""}
  '';
in
{
  options.networking.nftables = {
    enable = flag false;
    checkRuleset = flag true;
    checkRulesetRedirects = mkOption { type = types.attrsOf types.path; default = { }; };
    preCheckRuleset = mkOption { type = types.lines; default = ""; };
    flushRuleset = flag (lib.versionOlder config.system.stateVersion "23.11" || cfg.rulesetFile != null || cfg.ruleset != "");
    flattenRulesetFile = flag false;
    extraDeletions = mkOption { type = types.lines; default = ""; };
    ruleset = mkOption { type = types.lines; default = ""; };
    rulesetFile = mkOption { type = types.nullOr types.path; default = null; };
    tables = mkOption { type = types.attrsOf (types.submodule table); default = { }; };
  };

  config = lib.mkMerge [
    (lib.mkIf cfg.enable {
      boot.blacklistedKernelModules = [ "ip_tables" ];
      environment.systemPackages = [ pkgs.nftables ];
      networking.nftables.tables.nixos-fw = lib.mkIf fw.enable { family = "inet"; content = rules; };
      assertions = lib.mkIf fw.enable [
        { assertion = fw.extraCommands == ""; message = "extraCommands is incompatible with the nftables based firewall: ${fw.extraCommands}"; }
        { assertion = fw.extraStopCommands == ""; message = "extraStopCommands is incompatible with the nftables based firewall: ${fw.extraStopCommands}"; }
        { assertion = fw.pingLimit == null || !(lib.hasPrefix "--" fw.pingLimit); message = "nftables syntax like \"2/second\" should be used in networking.firewall.pingLimit"; }
      ];
      systemd.services.nftables = {
        description = "nftables firewall";
        after = [ "sysinit.target" ];
        before = [ "network-pre.target" "shutdown.target" ];
        conflicts = [ "shutdown.target" ];
        wants = [ "network-pre.target" ];
        wantedBy = [ "multi-user.target" ];
        reloadIfChanged = true;
        unitConfig.DefaultDependencies = false;
        serviceConfig = {
          Type = "oneshot";
          RemainAfterExit = true;
          ExecStart = [ "${pkgs.nftables}/bin/nft -f ${loaded}" ];
          ExecReload = [ "${pkgs.nftables}/bin/nft -f ${loaded}" ];
          ExecStop = [ "${pkgs.nftables}/bin/nft -f ${deletions}" ];
          StateDirectory = "nftables";
        };
      };
    })
  ];
}
