# Services that belong to systemd, and small ones beside it: journal, time, names, logins, memory pressure, log rotation.
{ config, lib, pkgs, ... }:
let
  inherit (lib) mkOption types;
  cfg = config.services;
  flag = default: mkOption { type = types.bool; inherit default; };
  text = mkOption { type = types.lines; default = ""; };
  str = default: mkOption { type = types.str; inherit default; };
  free = mkOption { type = types.attrsOf types.unspecified; default = { }; };
  ini = section: values: lib.generators.toINI { mkKeyValue = lib.generators.mkKeyValueDefault { mkValueString = v: if v == true then "yes" else if v == false then "no" else if lib.isList v then lib.concatMapStringsSep " " toString v else toString v; } "="; } { ${section} = values; };
  upstream = name: { overrideStrategy = "asDropinIfExists"; path = lib.mkForce [ ]; } // name;
in
{
  options.services = {
    journald = {
      console = str "";
      rateLimitInterval = str "30s";
      rateLimitBurst = mkOption { type = types.int; default = 10000; };
      storage = mkOption { type = types.enum [ "persistent" "volatile" "auto" "none" ]; default = "persistent"; };
      audit = mkOption { type = types.nullOr types.bool; default = false; };
      extraConfig = text;
      forwardToSyslog = flag false;
    };
    timesyncd = { enable = flag (!config.boot.isContainer); servers = mkOption { type = types.nullOr (types.listOf types.str); default = config.networking.timeServers; }; fallbackServers = mkOption { type = types.nullOr (types.listOf types.str); default = null; }; extraConfig = text; };
    resolved = { enable = flag false; llmnr = str "true"; dnssec = str "false"; dnsovertls = str "false"; domains = mkOption { type = types.listOf types.str; default = [ ]; }; fallbackDns = mkOption { type = types.nullOr (types.listOf types.str); default = null; }; extraConfig = text; settings.Resolve = free; };
    logind = { lidSwitch = str "suspend"; killUserProcesses = flag false; powerKey = str "poweroff"; extraConfig = text; settings.Login = free; };
    earlyoom = {
      enable = flag false;
      freeMemThreshold = mkOption { type = types.ints.between 1 100; default = 10; };
      freeMemKillThreshold = mkOption { type = types.nullOr (types.ints.between 1 100); default = null; };
      freeSwapThreshold = mkOption { type = types.ints.between 1 100; default = 10; };
      freeSwapKillThreshold = mkOption { type = types.nullOr (types.ints.between 1 100); default = null; };
      enableDebugInfo = flag false;
      enableNotifications = flag false;
      killHook = mkOption { type = types.nullOr types.path; default = null; };
      reportInterval = mkOption { type = types.int; default = 3600; };
      extraArgs = mkOption { type = types.listOf types.str; default = [ ]; };
    };
    logrotate = { enable = flag (cfg.logrotate.settings != { }); settings = mkOption { type = types.attrsOf types.attrs; default = { }; }; checkConfig = flag true; };
  };

  config = lib.mkMerge [
    {
      environment.etc."systemd/journald.conf".text = ''
        [Journal]
        Storage=${cfg.journald.storage}
        RateLimitInterval=${cfg.journald.rateLimitInterval}
        RateLimitBurst=${toString cfg.journald.rateLimitBurst}
        ${lib.optionalString (cfg.journald.console != "") "ForwardToConsole=yes\nTTYPath=${cfg.journald.console}"}
        ${lib.optionalString cfg.journald.forwardToSyslog "ForwardToSyslog=yes"}
        Audit=${if cfg.journald.audit == null then "" else if cfg.journald.audit then "yes" else "no"}
        ${cfg.journald.extraConfig}
      '';
      systemd.tmpfiles.rules = [ "d /var/log/journal 2755 root systemd-journal - -" ];
      environment.etc."systemd/logind.conf".text = ini "Login" ({ KillUserProcesses = cfg.logind.killUserProcesses; HandleLidSwitch = cfg.logind.lidSwitch; HandlePowerKey = cfg.logind.powerKey; } // cfg.logind.settings.Login) + cfg.logind.extraConfig;
    }
    (lib.mkIf cfg.timesyncd.enable {
      systemd.additionalUpstreamSystemUnits = [ "systemd-timesyncd.service" "systemd-time-wait-sync.service" ];
      environment.etc."systemd/timesyncd.conf".text = ini "Time" (lib.optionalAttrs (cfg.timesyncd.servers != null) { NTP = cfg.timesyncd.servers; }) + cfg.timesyncd.extraConfig;
      systemd.services.systemd-timesyncd = upstream { wantedBy = [ "sysinit.target" ]; aliases = [ "dbus-org.freedesktop.timesync1.service" ]; restartTriggers = [ config.environment.etc."systemd/timesyncd.conf".source ]; };
    })
    (lib.mkIf cfg.resolved.enable {
      systemd.additionalUpstreamSystemUnits = [ "systemd-resolved.service" ];
      environment.etc."systemd/resolved.conf".text = ini "Resolve" ({ LLMNR = cfg.resolved.llmnr; DNSSEC = cfg.resolved.dnssec; DNSOverTLS = cfg.resolved.dnsovertls; } // lib.optionalAttrs (cfg.resolved.domains != [ ]) { Domains = cfg.resolved.domains; } // lib.optionalAttrs (config.networking.nameservers != [ ]) { DNS = config.networking.nameservers; } // cfg.resolved.settings.Resolve) + cfg.resolved.extraConfig;
      environment.etc."resolv.conf" = { source = lib.mkForce "/run/systemd/resolve/stub-resolv.conf"; mode = "direct-symlink"; };
      systemd.services.systemd-resolved = upstream { wantedBy = [ "sysinit.target" ]; aliases = [ "dbus-org.freedesktop.resolve1.service" ]; restartTriggers = [ config.environment.etc."systemd/resolved.conf".source ]; };
    })
    (lib.mkIf config.systemd.oomd.enable {
      systemd.additionalUpstreamSystemUnits = [ "systemd-oomd.service" "systemd-oomd.socket" ];
      environment.etc."systemd/oomd.conf".text = ini "OOM" ({ DefaultMemoryPressureDurationSec = "20s"; } // config.systemd.oomd.extraConfig // config.systemd.oomd.settings.OOM);
      systemd.services.systemd-oomd = upstream { wantedBy = [ "multi-user.target" ]; };
      systemd.slices."-".sliceConfig = lib.mkIf config.systemd.oomd.enableRootSlice { ManagedOOMMemoryPressure = "kill"; ManagedOOMMemoryPressureLimit = lib.mkDefault "80%"; };
      systemd.slices.system.sliceConfig = lib.mkIf config.systemd.oomd.enableSystemSlice { ManagedOOMMemoryPressure = "kill"; ManagedOOMMemoryPressureLimit = lib.mkDefault "80%"; };
    })
    (lib.mkIf cfg.earlyoom.enable {
      systemd.services.earlyoom = {
        description = "Early OOM Daemon for Linux";
        wantedBy = [ "multi-user.target" ];
        path = [ pkgs.dbus ];
        serviceConfig = {
          StandardError = "journal";
          ExecStart = lib.concatStringsSep " " ([
            "${pkgs.earlyoom}/bin/earlyoom"
            "-m ${toString cfg.earlyoom.freeMemThreshold}${lib.optionalString (cfg.earlyoom.freeMemKillThreshold != null) ",${toString cfg.earlyoom.freeMemKillThreshold}"}"
            "-s ${toString cfg.earlyoom.freeSwapThreshold}${lib.optionalString (cfg.earlyoom.freeSwapKillThreshold != null) ",${toString cfg.earlyoom.freeSwapKillThreshold}"}"
            "-r ${toString cfg.earlyoom.reportInterval}"
          ] ++ lib.optional cfg.earlyoom.enableDebugInfo "-d" ++ cfg.earlyoom.extraArgs);
        };
      };
    })
    (lib.mkIf cfg.logrotate.enable {
      systemd.services.logrotate = { description = "Logrotate Service"; startAt = "hourly"; serviceConfig = { Type = "oneshot"; ExecStart = "${pkgs.logrotate}/sbin/logrotate ${pkgs.writeText "logrotate.conf" "weekly\n"}"; }; };
    })
  ];
}
