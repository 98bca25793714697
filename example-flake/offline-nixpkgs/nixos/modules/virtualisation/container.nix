# A system that runs in a container: no kernel, no initial RAM disk, no devices.
{ config, lib, pkgs, ... }:
{
  options.boot.isContainer = lib.mkOption { type = lib.types.bool; default = false; };
  # As in nixpkgs since 25.11: a container of another kind is one too, so this does not follow from the first.
  options.boot.isNspawnContainer = lib.mkOption { type = lib.types.bool; default = false; };
  config = lib.mkIf config.boot.isContainer {
    boot.kernel.enable = false;
    boot.modprobeConfig.enable = false;
    networking.useHostResolvConf = lib.mkDefault true;
    documentation.nixos.enable = lib.mkDefault false;
    services.lvm.enable = lib.mkDefault false;
    services.openssh.startWhenNeeded = lib.mkDefault true;
    systemd.services.console-getty.enable = true;
    powerManagement.enable = false;
    security.pam.services.login.setLoginUid = lib.mkForce false;
  };
}
