# The same host with the firewall's older backend, and with systemd in stage 1, as NixOS has it from 26.05.
{
  imports = [ ./llm-host.nix ];
  networking.hostName = "firewall-iptables";
  networking.nftables.enable = false;
  boot.initrd.systemd.enable = true;
}
