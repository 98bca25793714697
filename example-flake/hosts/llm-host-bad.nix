# The same host with the firewall's older backend.
{
  imports = [ ./llm-host.nix ];
  networking.hostName = "firewall-iptables";
  networking.nftables.enable = false;
}
