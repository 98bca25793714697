# A host that is a container from the start.
{
  imports = [
    ../modules/base.nix
    ../modules/network-sysctl.nix
    ../modules/notes.nix
  ];
  boot.isContainer = true;
  networking.hostName = "container-host";
  # BOOT-005 holds the boot to this many seconds.
  passthru.pytest-nixos.bootBudget = 60;
  networking.nftables.enable = true;
  networking.firewall.allowedTCPPorts = [ 8080 ];
  networking.firewall.allowedUDPPorts = [ 8081 ];
}
