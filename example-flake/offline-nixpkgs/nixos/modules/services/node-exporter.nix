# Prometheus' node exporter.
{ config, lib, pkgs, ... }:
let
  inherit (lib) mkOption types;
  cfg = config.services.prometheus.exporters.node;
  words = mkOption { type = types.listOf types.str; default = [ ]; };
  needs = collector: lib.elem collector cfg.enabledCollectors;
in
{
  options.services.prometheus.exporters.node = {
    enable = mkOption { type = types.bool; default = false; };
    port = mkOption { type = types.port; default = 9100; };
    listenAddress = mkOption { type = types.str; default = "0.0.0.0"; };
    enabledCollectors = words;
    disabledCollectors = words;
    extraFlags = words;
    openFirewall = mkOption { type = types.bool; default = false; };
    firewallFilter = mkOption { type = types.nullOr types.str; default = "-p tcp -m tcp --dport ${toString cfg.port}"; };
    firewallRules = mkOption { type = types.nullOr types.lines; default = "tcp dport ${toString cfg.port} accept comment \"node-exporter\""; };
    user = mkOption { type = types.str; default = "node-exporter"; };
    group = mkOption { type = types.str; default = "node-exporter"; };
  };
  config = lib.mkIf cfg.enable {
    users.users.node-exporter = { description = "Prometheus node exporter service user"; isSystemUser = true; inherit (cfg) group; };
    users.groups.node-exporter = { };
    networking.firewall.extraCommands = lib.mkIf (cfg.openFirewall && !config.networking.nftables.enable) "ip46tables -A nixos-fw ${cfg.firewallFilter} -m comment --comment node-exporter -j nixos-fw-accept";
    networking.firewall.extraInputRules = lib.mkIf (cfg.openFirewall && config.networking.nftables.enable) cfg.firewallRules;
    systemd.services.prometheus-node-exporter = {
      wantedBy = [ "multi-user.target" ];
      after = [ "network.target" ];
      serviceConfig = import ./hardening.nix // {
        Restart = "always";
        WorkingDirectory = "/tmp";
        DynamicUser = false;
        User = cfg.user;
        Group = cfg.group;
        CapabilityBoundingSet = [ "" ];
        DeviceAllow = [ "" ];
        ProtectClock = lib.elem "timex" cfg.disabledCollectors;
        RemoveIPC = true;
        RestrictAddressFamilies = [ "AF_INET" "AF_INET6" ] ++ lib.optional (needs "logind" || needs "systemd") "AF_UNIX" ++ lib.optional (needs "network_route" || needs "wifi" || !(lib.elem "netdev" cfg.disabledCollectors)) "AF_NETLINK";
        SystemCallArchitectures = "native";
        RuntimeDirectory = "prometheus-node-exporter";
        ExecStart = lib.concatStringsSep " " ([ "${pkgs.prometheus-node-exporter}/bin/prometheus-node-exporter" ] ++ map (c: "--collector.${c}") cfg.enabledCollectors ++ map (c: "--no-collector.${c}") cfg.disabledCollectors
          ++ [ "--web.listen-address ${cfg.listenAddress}:${toString cfg.port}" ] ++ cfg.extraFlags);
      };
    };
  };
}
