# A small host with UEFI and systemd-boot: what must survive a reboot is tested on it, its own boot loader included.
{ lib, ... }:
{
  imports = [ ../modules/base.nix ../modules/network-sysctl.nix ];
  networking.hostName = "loader-host";
  boot.loader.systemd-boot.enable = true;
  boot.loader.efi.canTouchEfiVariables = true;
}
