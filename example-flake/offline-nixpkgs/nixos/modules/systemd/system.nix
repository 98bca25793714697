# The system manager's own configuration.
{ config, lib, pkgs, ... }:
let
  inherit (lib) mkOption types;
  cfg = config.systemd;
  section = types.attrsOf types.unspecified;
in
{
  options.systemd = {
    tmpfiles = {
      rules = mkOption { type = types.listOf types.str; default = [ ]; };
      packages = mkOption { type = types.listOf types.package; default = [ ]; };
      settings = mkOption {
        default = { };
        type = types.attrsOf (types.attrsOf (types.attrsOf (types.submodule ({ name, ... }: {
          options = lib.mapAttrs (_: default: mkOption { type = types.str; inherit default; }) { type = name; mode = "-"; user = "-"; group = "-"; age = "-"; argument = ""; };
        }))));
      };
    };
    settings.Manager = mkOption { type = section; default = { }; };
    extraConfig = mkOption { type = types.lines; default = ""; };
    watchdog = {
      device = mkOption { type = types.nullOr types.path; default = null; };
      runtimeTime = mkOption { type = types.nullOr types.str; default = null; };
      rebootTime = mkOption { type = types.nullOr types.str; default = null; };
      kexecTime = mkOption { type = types.nullOr types.str; default = null; };
    };
    managerEnvironment = mkOption { type = types.attrsOf (types.nullOr types.str); default = { }; };
    enableEmergencyMode = mkOption { type = types.bool; default = true; };
    enableCgroupAccounting = mkOption { type = types.bool; default = true; };
    sleep.extraConfig = mkOption { type = types.lines; default = ""; };
    shutdown = mkOption { type = types.attrsOf types.path; default = { }; };
    generators = mkOption { type = types.attrsOf types.path; default = { }; };
    user.extraConfig = mkOption { type = types.lines; default = ""; };
    coredump.enable = mkOption { type = types.bool; default = true; };
    coredump.extraConfig = mkOption { type = types.lines; default = ""; };
    coredump.settings.Coredump = mkOption { type = section; default = { }; };
    oomd = {
      enable = mkOption { type = types.bool; default = true; };
      enableRootSlice = mkOption { type = types.bool; default = false; };
      enableSystemSlice = mkOption { type = types.bool; default = false; };
      enableUserSlices = mkOption { type = types.bool; default = false; };
      extraConfig = mkOption { type = section; default = { }; };
      settings.OOM = mkOption { type = section; default = { }; };
    };
  };

  config = {
    environment.etc = {
      "systemd/system.conf".text = lib.generators.toINI { listsAsDuplicateKeys = true; }
        { Manager = lib.mapAttrs (_: v: if v == true then "true" else if v == false then "false" else v) ({
            ManagerEnvironment = lib.concatStringsSep " " (lib.mapAttrsToList (n: v: "${n}=${lib.escapeShellArg v}") (lib.filterAttrs (_: v: v != null) cfg.managerEnvironment));
          } // cfg.settings.Manager); } + cfg.extraConfig;
      "systemd/user.conf".text = "[Manager]\n${cfg.user.extraConfig}";
      "systemd/coredump.conf".text = "[Coredump]\n${cfg.coredump.extraConfig}" + lib.generators.toKeyValue { } cfg.coredump.settings.Coredump;
      "sysctl.d/50-coredump.conf" = lib.mkIf cfg.coredump.enable { source = "${cfg.package}/lib/sysctl.d/50-coredump.conf"; };
      "systemd/sleep.conf".text = "[Sleep]\n${cfg.sleep.extraConfig}";
      "tmpfiles.d/00-nixos.conf".text = "# This file is created automatically and should not be modified.\n# Please change the option ‘systemd.tmpfiles.rules’ instead.\n\n${lib.concatStringsSep "\n" cfg.tmpfiles.rules}\n";
      "systemd/system-generators".source = pkgs.linkFarm "system-generators" (lib.mapAttrsToList (name: path: { inherit name path; }) cfg.generators);
    } // lib.mapAttrs' (name: paths: lib.nameValuePair "tmpfiles.d/${name}.conf" {
      text = lib.concatStrings (lib.concatLists (lib.mapAttrsToList (path: rules: lib.mapAttrsToList (_: r: "${r.type} '${path}' ${r.mode} ${r.user} ${r.group} ${r.age} ${r.argument}\n") rules) paths));
    }) cfg.tmpfiles.settings // lib.listToAttrs (map
      (name: lib.nameValuePair "tmpfiles.d/${name}.conf" { source = "${cfg.package}/lib/tmpfiles.d/${name}.conf"; })
      [ "static-nodes-permissions" "systemd" "systemd-nologin" "tmp" "var" "x11" "journal-nocow" ]);
    systemd.managerEnvironment = {
      PATH = lib.makeBinPath [ cfg.package pkgs.util-linux pkgs.e2fsprogs pkgs.coreutils pkgs.kmod ];
      TZDIR = "/etc/zoneinfo";
      SYSTEMD_UNIT_PATH = if config.boot.extraSystemdUnitPaths == [ ] then null else "${lib.concatStringsSep ":" config.boot.extraSystemdUnitPaths}:";
    };
    boot.kernel.sysctl = lib.mkIf (!cfg.coredump.enable) { "kernel.core_pattern" = lib.mkDefault "core"; };
    environment.systemPackages = [ cfg.package ];
    # Changed only by a reboot, as in NixOS.
    systemd.services = lib.mkMerge [
      (lib.genAttrs [ "systemd-logind" "user@" "systemd-journald" "systemd-journald@" "systemd-journal-flush" "user-runtime-dir@" "systemd-update-done" "systemd-random-seed" "systemd-remount-fs" "systemd-tmpfiles-setup" "getty@" "serial-getty@" "container-getty@" "console-getty" "dbus" ]
        (name: { restartIfChanged = false; overrideStrategy = lib.mkDefault "asDropinIfExists"; path = lib.mkForce [ ]; }))
      {
        systemd-journald.stopIfChanged = false;
        systemd-udevd = lib.mkIf (!config.boot.isContainer) { restartIfChanged = false; path = lib.mkForce [ ]; };
        systemd-remount-fs.unitConfig.ConditionVirtualization = "!container";
        systemd-tmpfiles-setup.restartTriggers = [ ];
        systemd-sysctl = { path = lib.mkForce [ ]; };
        "serial-getty@".serviceConfig.Restart = "always";
      }
    ];
    systemd.targets.network-online.wantedBy = [ ];
    systemd.targets.local-fs.unitConfig.X-StopOnReconfiguration = true;
    systemd.targets.remote-fs.unitConfig.X-StopOnReconfiguration = true;
  };
}
