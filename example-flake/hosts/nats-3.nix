# One of three members of a NATS cluster.
{
  imports = [ ../modules/nats-cluster.nix ];
  networking.hostName = "nats-3";
  networking.interfaces.eth0.ipv4.addresses = [ { address = "10.20.0.13"; prefixLength = 24; } ];
}
