# A container for Proxmox VE, made from a template.
{ lib, modulesPath, ... }:
{
  imports = [
    "${modulesPath}/virtualisation/proxmox-lxc.nix"
    ../modules/base.nix
  ];
  networking.hostName = lib.mkDefault "lxc-host";
  networking.useDHCP = true;
  proxmoxLXC = {
    manageNetwork = true;
    manageHostName = true;
    privileged = false;
  };
}
