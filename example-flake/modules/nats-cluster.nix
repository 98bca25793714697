# A member of a NATS cluster of three, with JetStream. Its neighbours are called by their hosts' names.
{ config, lib, ... }:
{
  imports = [ ./base.nix ];
  networking.useDHCP = false;
  networking.nftables.enable = true;
  networking.firewall.allowedTCPPorts = [
    4222 # clients
    6222 # routes
    7422 # leaf nodes
  ];
  networking.hosts = {
    "10.20.0.11" = [ "nats-1" ];
    "10.20.0.12" = [ "nats-2" ];
    "10.20.0.13" = [ "nats-3" ];
  };

  services.prometheus.exporters.node = {
    enable = true;
    openFirewall = true;
  };

  services.nats = {
    enable = true;
    serverName = config.networking.hostName;
    jetstream = true;
    settings = {
      http = "127.0.0.1:8222";
      jetstream = {
        max_memory_store = 67108864;
        max_file_store = 268435456;
      };
      leafnodes.listen = "0.0.0.0:7422";
      cluster = {
        name = "example";
        listen = "0.0.0.0:6222";
        routes = [ "nats://nats-1:6222" "nats://nats-2:6222" "nats://nats-3:6222" ];
      };
    };
  };
}
