# SSH for the administrator, two services for the network, nothing else. Each open port has a listener.
{
  networking.firewall = {
    enable = true;
    allowedTCPPorts = [
      8080 # notes
      9100 # node exporter
    ];
    allowedUDPPorts = [
      8081 # notes, discovery
    ];
    allowPing = true;
    logRefusedConnections = true;
  };
}
