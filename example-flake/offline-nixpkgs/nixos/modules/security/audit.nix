# The kernel's audit system and its daemon; AppArmor.
{ config, lib, pkgs, ... }:
let
  inherit (lib) mkOption types;
  cfg = config.security.audit;
  failure = { silent = "0"; printk = "1"; panic = "2"; }.${cfg.failureMode};
  rules = pkgs.writeText "audit.rules" ''
    -D
    -b ${toString cfg.backlogLimit}
    -f ${failure}
    -r ${toString cfg.rateLimit}
    ${lib.concatStringsSep "\n" cfg.rules}
    -e ${if cfg.enable == "lock" then "2" else "1"}
  '';
  flag = default: mkOption { type = types.bool; inherit default; };
in
{
  options.security.audit = {
    enable = mkOption { type = types.enum [ false true "lock" ]; default = false; };
    failureMode = mkOption { type = types.enum [ "silent" "printk" "panic" ]; default = "printk"; };
    backlogLimit = mkOption { type = types.int; default = 1024; };
    rateLimit = mkOption { type = types.int; default = 0; };
    rules = mkOption { type = types.listOf types.str; default = [ ]; };
  };
  options.security.auditd.enable = flag false;
  options.security.auditd.settings = mkOption { type = types.attrsOf types.unspecified; default = { }; };
  options.security.apparmor = {
    enable = flag false;
    packages = mkOption { type = types.listOf types.package; default = [ ]; };
    policies = mkOption { type = types.attrsOf types.attrs; default = { }; };
    killUnconfinedConfinables = flag false;
    enableCache = flag false;
  };

  config = lib.mkMerge [
    (lib.mkIf (cfg.enable != false) {
      boot.kernelParams = [ "audit=1" "audit_backlog_limit=${toString cfg.backlogLimit}" ];
      environment.systemPackages = [ pkgs.audit ];
      systemd.services.audit-rules-nixos = {
        description = "Kernel Auditing";
        wantedBy = [ "sysinit.target" ];
        before = [ "sysinit.target" "shutdown.target" ];
        after = [ "auditd.service" ];
        conflicts = [ "shutdown.target" ];
        unitConfig = { DefaultDependencies = false; ConditionVirtualization = "!container"; ConditionKernelCommandLine = [ "!audit=0" "!audit=off" ]; };
        serviceConfig = { Type = "oneshot"; RemainAfterExit = true; ExecStart = "${pkgs.audit}/bin/auditctl -R ${rules}"; ExecStopPost = [ "-${pkgs.audit}/bin/auditctl -e 0" ]; };
      };
    })
    (lib.mkIf config.security.auditd.enable {
      boot.kernelParams = [ "audit=1" ];
      environment.systemPackages = [ pkgs.audit ];
      environment.etc."audit/auditd.conf" = { mode = "0640"; text = ''
        log_file = /var/log/audit/audit.log
        log_group = root
        log_format = ENRICHED
        flush = INCREMENTAL_ASYNC
        freq = 50
        max_log_file = 8
        num_logs = 5
        max_log_file_action = ROTATE
        space_left = 75
        space_left_action = SYSLOG
        admin_space_left = 50
        admin_space_left_action = SUSPEND
        disk_full_action = SUSPEND
        disk_error_action = SUSPEND
        ${lib.concatStrings (lib.mapAttrsToList (n: v: "${n} = ${toString v}\n") config.security.auditd.settings)}
      ''; };
      systemd.tmpfiles.rules = [ "d /etc/audit/plugins.d 0750 root root -" ];
      systemd.services.auditd = {
        description = "Linux Audit daemon";
        wantedBy = [ "sysinit.target" ];
        after = [ "local-fs.target" "systemd-tmpfiles-setup.service" ];
        before = [ "sysinit.target" "shutdown.target" ];
        conflicts = [ "shutdown.target" ];
        unitConfig = { DefaultDependencies = false; ConditionVirtualization = "!container"; RefuseManualStop = true; };
        path = [ pkgs.audit ];
        serviceConfig = { Type = "simple"; LogsDirectory = "audit"; LogsDirectoryMode = "0700"; ExecStart = "${pkgs.audit}/bin/auditd -l -n -s nochange"; };
      };
    })
    (lib.mkIf config.security.apparmor.enable {
      environment.systemPackages = [ pkgs.apparmor-parser pkgs.apparmor-bin-utils ];
      boot.kernelParams = [ "apparmor=1" "security=apparmor" ];
      systemd.services.apparmor = {
        description = "Load AppArmor policies";
        wantedBy = [ "multi-user.target" "sysinit.target" ];
        after = [ "local-fs.target" ];
        before = [ "sysinit.target" "shutdown.target" ];
        conflicts = [ "shutdown.target" ];
        unitConfig = { DefaultDependencies = false; ConditionSecurity = "apparmor"; };
        serviceConfig = { Type = "oneshot"; RemainAfterExit = true; ExecStart = "${pkgs.coreutils}/bin/true"; };
      };
    })
  ];
}
