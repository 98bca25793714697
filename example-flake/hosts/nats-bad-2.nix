# One of two members of a NATS cluster that never forms: clients reach each, and the members not one another.
{ lib, ... }:
{
  imports = [ ../modules/nats-cluster.nix ];
  networking.hostName = "nats-bad-2";
  networking.interfaces.eth0.ipv4.addresses = [ { address = "10.20.0.22"; prefixLength = 24; } ];
  services.nats.settings.cluster.routes = lib.mkForce [ "nats://10.20.0.21:6222" "nats://10.20.0.22:6222" ];
  # breaks: NATS-002 and NATS-009 (the port of the routes is not open)
  networking.firewall.allowedTCPPorts = lib.mkForce [ 4222 ];
}
