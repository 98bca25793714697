# The kernel, its command line and its modules.
{ config, lib, pkgs, ... }:
let
  inherit (lib) mkOption types;
in
{
  options = {
    boot.kernel = {
      enable = mkOption { type = types.bool; default = true; };
      features = mkOption { type = types.attrs; default = { }; internal = true; };
      randstructSeed = mkOption { type = types.str; default = ""; };
    };
    boot.kernelPackages = mkOption { type = types.raw; default = pkgs.linuxPackages; };
    boot.kernelPatches = mkOption { type = types.listOf types.attrs; default = [ ]; };
    boot.kernelParams = mkOption { type = types.listOf types.str; default = [ ]; };
    boot.consoleLogLevel = mkOption { type = types.int; default = 4; };
    boot.vesa = mkOption { type = types.bool; default = false; };
    boot.extraModulePackages = mkOption { type = types.listOf types.package; default = [ ]; };
    boot.kernelModules = mkOption { type = types.listOf types.str; default = [ ]; };
    boot.blacklistedKernelModules = mkOption { type = types.listOf types.str; default = [ ]; };
    boot.extraModprobeConfig = mkOption { type = types.lines; default = ""; };
    boot.modprobeConfig.enable = mkOption { type = types.bool; default = true; };
    boot.hardwareScan = mkOption { type = types.bool; default = true; };
    boot.binfmt.emulatedSystems = mkOption { type = types.listOf types.str; default = [ ]; };
    boot.plymouth.enable = mkOption { type = types.bool; default = false; };
    boot.crashDump.enable = mkOption { type = types.bool; default = false; };
    system.modulesTree = mkOption { type = types.listOf types.path; internal = true; default = [ ]; apply = trees: if trees == [ ] then pkgs.emptyDirectory else lib.head trees; };
    system.requiredKernelConfig = mkOption { type = types.listOf types.attrs; default = [ ]; internal = true; };
  };

  config = lib.mkIf config.boot.kernel.enable {
    system.build.kernel = config.boot.kernelPackages.kernel;
    system.modulesTree = [ config.boot.kernelPackages.kernel ] ++ config.boot.extraModulePackages;
    boot.kernelParams = [ "loglevel=${toString config.boot.consoleLogLevel}" ];
    boot.kernelModules = [ "loop" "atkbd" ];
    environment.etc."modules-load.d/nixos.conf".text = lib.concatMapStrings (module: "${module}\n") config.boot.kernelModules;
    environment.etc."modprobe.d/nixos.conf".text = ''
      ${lib.concatMapStrings (module: "blacklist ${module}\n") config.boot.blacklistedKernelModules}
      ${config.boot.extraModprobeConfig}
    '';
    environment.etc."modprobe.d/systemd.conf".text = "options bonding max_bonds=0\noptions dummy numdummies=0\n";
    system.activationScripts.modprobe = lib.mkIf (!config.boot.isContainer) ''
      # The kernel asks this program for modules.
      echo ${pkgs.kmod}/bin/modprobe > /proc/sys/kernel/modprobe || :
    '';
    systemd.services.systemd-modules-load = {
      wantedBy = [ "multi-user.target" ];
      restartTriggers = [ config.environment.etc."modules-load.d/nixos.conf".source ];
      overrideStrategy = "asDropin";
      serviceConfig.SuccessExitStatus = "0 1";
    };
  };
}
