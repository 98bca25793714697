# The firewall as iptables chains named nixos-fw.
{ config, lib, pkgs, ... }:
let
  fw = config.networking.firewall;

  helpers = ''
    # Run a command for IPv4 and for IPv6.
    ip46tables() {
      iptables -w "$@"
      ${lib.optionalString config.networking.enableIPv6 "ip6tables -w \"$@\""}
    }
  '';
  accept = interface: protocol: port:
    "ip46tables -A nixos-fw -p ${protocol} --dport ${port} -j nixos-fw-accept${lib.optionalString (interface != "default") " -i ${interface}"}\n";
  range = r: "${toString r.from}:${toString r.to}";
  interfaceRules = name: i:
    lib.concatMapStrings (p: accept name "tcp" (toString p)) i.allowedTCPPorts + lib.concatMapStrings (r: accept name "tcp" (range r)) i.allowedTCPPortRanges
    + lib.concatMapStrings (p: accept name "udp" (toString p)) i.allowedUDPPorts + lib.concatMapStrings (r: accept name "udp" (range r)) i.allowedUDPPortRanges;
  chains = "nixos-fw nixos-fw-accept nixos-fw-log-refuse nixos-fw-refuse";

  forget = ''
    ip46tables -D INPUT -j nixos-fw 2>/dev/null || true
    for chain in ${chains}; do
      ip46tables -F "$chain" 2>/dev/null || true
      ip46tables -X "$chain" 2>/dev/null || true
    done
    ip46tables -t mangle -D PREROUTING -j nixos-fw-rpfilter 2>/dev/null || true
    ip46tables -t mangle -F nixos-fw-rpfilter 2>/dev/null || true
    ip46tables -t mangle -X nixos-fw-rpfilter 2>/dev/null || true
  '';

  start = ''
    ${helpers}
    ${forget}
    ip46tables -N nixos-fw-accept
    ip46tables -A nixos-fw-accept -j ACCEPT

    ip46tables -N nixos-fw-refuse
    ${if fw.rejectPackets then ''
      ip46tables -A nixos-fw-refuse -p tcp ! --syn -j REJECT --reject-with tcp-reset
      ip46tables -A nixos-fw-refuse -j REJECT
    '' else ''
      ip46tables -A nixos-fw-refuse -j DROP
    ''}
    ip46tables -N nixos-fw-log-refuse
    ${lib.optionalString fw.logRefusedConnections ''ip46tables -A nixos-fw-log-refuse -p tcp --syn -j LOG --log-level info --log-prefix "refused connection: "''}
    ${lib.optionalString (fw.logRefusedPackets && !fw.logRefusedUnicastsOnly) ''
      ip46tables -A nixos-fw-log-refuse -m pkttype --pkt-type broadcast -j LOG --log-level info --log-prefix "refused broadcast: "
      ip46tables -A nixos-fw-log-refuse -m pkttype --pkt-type multicast -j LOG --log-level info --log-prefix "refused multicast: "
    ''}
    ip46tables -A nixos-fw-log-refuse -m pkttype ! --pkt-type unicast -j nixos-fw-refuse
    ${lib.optionalString fw.logRefusedPackets ''ip46tables -A nixos-fw-log-refuse -j LOG --log-level info --log-prefix "refused packet: "''}
    ip46tables -A nixos-fw-log-refuse -j nixos-fw-refuse

    ip46tables -N nixos-fw
    ${lib.optionalString (fw.checkReversePath != false) ''
      ip46tables -t mangle -N nixos-fw-rpfilter 2>/dev/null || true
      ip46tables -t mangle -A nixos-fw-rpfilter -m rpfilter --validmark ${lib.optionalString (fw.checkReversePath == "loose") "--loose"} -j RETURN
      iptables -t mangle -A nixos-fw-rpfilter -p udp --sport 67 --dport 68 -j RETURN
      iptables -t mangle -A nixos-fw-rpfilter -s 0.0.0.0 -d 255.255.255.255 -p udp --sport 68 --dport 67 -j RETURN
      ${lib.optionalString fw.logReversePathDrops ''ip46tables -t mangle -A nixos-fw-rpfilter -j LOG --log-level info --log-prefix "rpfilter drop: "''}
      ip46tables -t mangle -A nixos-fw-rpfilter -j DROP
      ip46tables -t mangle -A PREROUTING -j nixos-fw-rpfilter
    ''}
    ${lib.concatMapStrings (i: "ip46tables -A nixos-fw -i ${i} -j nixos-fw-accept\n") fw.trustedInterfaces}
    ip46tables -A nixos-fw -m conntrack --ctstate ESTABLISHED,RELATED -j nixos-fw-accept
    ${lib.concatStrings (lib.mapAttrsToList interfaceRules fw.allInterfaces)}
    ${lib.optionalString fw.allowPing "iptables -w -A nixos-fw -p icmp --icmp-type echo-request ${lib.optionalString (fw.pingLimit != null) "-m limit ${fw.pingLimit} "}-j nixos-fw-accept"}
    ${lib.optionalString config.networking.enableIPv6 ''
      ip6tables -A nixos-fw -p icmpv6 --icmpv6-type redirect -j DROP
      ip6tables -A nixos-fw -p icmpv6 --icmpv6-type 139 -j DROP
      ip6tables -A nixos-fw -p icmpv6 -j nixos-fw-accept
      ip6tables -A nixos-fw -d fe80::/64 -p udp --dport 546 -j nixos-fw-accept
    ''}
    ${fw.extraCommands}
    ip46tables -A nixos-fw -j nixos-fw-log-refuse
    ip46tables -A INPUT -j nixos-fw
  '';
  stop = helpers + forget + fw.extraStopCommands;
in
{
  config = lib.mkIf (fw.enable && !config.networking.nftables.enable) {
    systemd.services.firewall = {
      description = "Firewall";
      wantedBy = [ "sysinit.target" ];
      wants = [ "network-pre.target" ];
      after = [ "systemd-modules-load.service" ];
      before = [ "network-pre.target" "shutdown.target" ];
      conflicts = [ "shutdown.target" ];
      path = [ fw.package ] ++ fw.extraPackages;
      unitConfig.ConditionCapability = "CAP_NET_ADMIN";
      unitConfig.DefaultDependencies = false;
      reloadIfChanged = true;
      serviceConfig = {
        Type = "oneshot";
        RemainAfterExit = true;
        ExecStart = "@${pkgs.writeShellScript "firewall-start" ("set -e\n" + start)} firewall-start";
        ExecReload = "@${pkgs.writeShellScript "firewall-reload" ("set -e\n" + start)} firewall-reload";
        ExecStop = "@${pkgs.writeShellScript "firewall-stop" stop} firewall-stop";
      };
    };
  };
}
