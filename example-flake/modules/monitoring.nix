# Numbers about the machine, and a message bus for the programs on it.
{
  services.prometheus.exporters.node = {
    enable = true;
    port = 9100;
    disabledCollectors = [ "arp" "infiniband" "nfs" "zfs" ];
  };
  services.nats = {
    enable = true;
    serverName = "llm-host";
    settings.host = "127.0.0.1";
  };
}
