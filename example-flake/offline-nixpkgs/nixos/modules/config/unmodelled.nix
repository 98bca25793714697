# Options that hosts set and that change nothing in the stand-in, and free places for the rest of a few namespaces.
{ config, lib, pkgs, ... }:
let
  inherit (lib) mkOption types;
  flag = default: mkOption { type = types.bool; inherit default; };
in
{
  options = {
    documentation = { enable = flag true; man.enable = flag true; man.generateCaches = flag false; info.enable = flag true; doc.enable = flag true; dev.enable = flag false; nixos.enable = flag true; };
    hardware = {
      enableRedistributableFirmware = flag false;
      enableAllFirmware = flag false;
      firmware = mkOption { type = types.listOf types.package; default = [ ]; };
      firmwareTree = mkOption { type = types.package; internal = true; default = pkgs.emptyDirectory; };
      cpu.amd.updateMicrocode = flag false;
      cpu.intel.updateMicrocode = flag false;
      graphics.enable = flag false;
      bluetooth.enable = flag false;
      pulseaudio.enable = flag false;
      ksm.enable = flag false;
    };
    powerManagement = { enable = flag true; cpuFreqGovernor = mkOption { type = types.nullOr types.str; default = null; }; powertop.enable = flag false; powerUpCommands = mkOption { type = types.lines; default = ""; }; powerDownCommands = mkOption { type = types.lines; default = ""; }; };
    programs = lib.genAttrs [ "command-not-found" "git" "vim" "nano" "less" "mtr" "htop" "nix-ld" "fuse" "zsh" "fish" "bash" "ssh" "gnupg" "tmux" ]
      (name: mkOption { default = { }; type = types.submodule { freeformType = types.attrsOf types.anything; options.enable = flag (lib.elem name [ "less" "nano" "command-not-found" "bash" ]); }; });
    xdg = lib.genAttrs [ "mime" "icons" "sounds" "autostart" "menus" ] (_: { enable = flag true; });
    fonts.fontconfig.enable = flag false;
    gtk.iconCache.enable = flag false;
    qt.enable = flag false;
    services.udisks2.enable = flag false;
    services.xserver.enable = flag false;
    services.dbus = { enable = flag true; packages = mkOption { type = types.listOf types.path; default = [ ]; }; implementation = mkOption { type = types.enum [ "dbus" "broker" ]; default = "dbus"; }; };
    services.udev = { enable = flag true; extraRules = mkOption { type = types.lines; default = ""; }; packages = mkOption { type = types.listOf types.path; default = [ ]; }; };
    services.fstrim.enable = flag false;
    services.fwupd.enable = flag false;
    services.nscd = { enable = flag true; enableNsncd = flag true; };
    services.qemuGuest.enable = flag false;
    services.speechd.enable = flag false;
    services.thermald.enable = flag false;
    services.irqbalance.enable = flag false;
  };
  config.environment.etc = lib.mkIf config.services.dbus.enable {
    "dbus-1".source = "${pkgs.debian}/etc/dbus-1";
  };
}
