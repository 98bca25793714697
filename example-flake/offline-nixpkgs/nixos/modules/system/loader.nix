# Boot loaders. The stand-in records the choice and installs none: its virtual machines are started by the kernel directly.
{ config, lib, pkgs, ... }:
let
  inherit (lib) mkOption types;
  bool = default: mkOption { type = types.bool; inherit default; };
in
{
  options = {
    system.boot.loader = {
      id = mkOption { type = types.str; default = if config.boot.loader.grub.enable then "grub" else if config.boot.loader.systemd-boot.enable then "systemd-boot" else ""; };
      kernelFile = mkOption { type = types.str; internal = true; default = "bzImage"; };
      initrdFile = mkOption { type = types.str; internal = true; default = "initrd"; };
    };
    system.build.installBootLoader = mkOption { type = types.raw; internal = true; default = pkgs.writeShellScript "install-boot-loader" "exit 0"; };
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
        consoleMode = mkOption { type = types.str; default = "keep"; };
      };
      grub = {
        enable = bool (!config.boot.isContainer);
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
