# A small host whose attribute name holds a dot and a dash.
{
  imports = [ ../modules/base.nix ../modules/network-sysctl.nix ];
  networking.hostName = "edge-lab-1";
  networking.firewall.allowedTCPPorts = [ ];
}
