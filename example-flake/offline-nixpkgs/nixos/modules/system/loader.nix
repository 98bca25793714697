# Boot loaders. systemd-boot is installed for real; of the others the stand-in records the choice only.
{ config, lib, pkgs, ... }:
let
  inherit (lib) mkOption types;
  bool = default: mkOption { type = types.bool; inherit default; };
  cfg = config.boot.loader;
  settings = pkgs.writeText "systemd-boot-settings.json" (builtins.toJSON {
    esp = cfg.efi.efiSysMountPoint;
    loader = "${pkgs.debian}/usr/lib/systemd/boot/efi/systemd-bootx64.efi";
    inherit (cfg) timeout;
    inherit (cfg.systemd-boot) editor;
    console_mode = cfg.systemd-boot.consoleMode;
    limit = cfg.systemd-boot.configurationLimit;
    tries = if cfg.systemd-boot.bootCounting.enable then cfg.systemd-boot.bootCounting.tries else null;
    distro = config.system.nixos.distroName;
  });
  installer = pkgs.writeShellScript "install-systemd-boot" ''
    exec ${pkgs.python3}/bin/python3 -IS ${../../scripts/install-systemd-boot.py} ${settings} "$@"
  '';
in
{
  options = {
    system.boot.loader = {
      id = mkOption { type = types.str; default = if config.boot.loader.grub.enable then "grub" else if config.boot.loader.systemd-boot.enable then "systemd-boot" else ""; };
      kernelFile = mkOption { type = types.str; internal = true; default = "bzImage"; };
      initrdFile = mkOption { type = types.str; internal = true; default = "initrd"; };
    };
    system.build.installBootLoader = mkOption { type = types.raw; internal = true; default = if cfg.systemd-boot.enable then installer else pkgs.writeShellScript "install-boot-loader" "exit 0"; };
    boot.loader = {
      timeout = mkOption { type = types.nullOr types.int; default = 5; };
      efi.canTouchEfiVariables = bool false;
      efi.efiSysMountPoint = mkOption { type = types.str; default = "/boot"; };
      external.enable = bool false;
      generic-extlinux-compatible.enable = bool false;
      initScript.enable = bool false;
      systemd-boot = {
        enable = bool false;
        editor = bool true;
        configurationLimit = mkOption { type = types.nullOr types.int; default = null; };
        bootCounting = {
          enable = bool false;
          tries = mkOption { type = types.ints.positive; default = 3; };
        };
        consoleMode = mkOption { type = types.str; default = "keep"; };
      };
      grub = {
        enable = bool (!config.boot.isContainer && !cfg.systemd-boot.enable);
        device = mkOption { type = types.str; default = ""; };
        devices = mkOption { type = types.listOf types.str; default = [ ]; };
        efiSupport = bool false;
        efiInstallAsRemovable = bool false;
        useOSProber = bool false;
        configurationLimit = mkOption { type = types.int; default = 100; };
        extraConfig = mkOption { type = types.lines; default = ""; };
        timeoutStyle = mkOption { type = types.enum [ "menu" "countdown" "hidden" ]; default = "menu"; };
      };
    };
  };
}
