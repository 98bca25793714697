# A small host whose attribute name holds a dot and a dash.
{ lib, ... }:
{
  imports = [ ../modules/base.nix ../modules/network-sysctl.nix ];
  networking.hostName = lib.mkDefault "edge-lab-1";
  networking.firewall.allowedTCPPorts = [ ];
}
