# A small web server; what it declares is what pytest-nixos expects of the booted machine.
{
  nixpkgs.hostPlatform = "x86_64-linux";
  networking.hostName = "web";
  system.stateVersion = "25.11";

  boot.loader.grub.device = "nodev";
  fileSystems."/" = {
    device = "/dev/disk/by-label/nixos";
    fsType = "ext4";
  };

  services.nginx = {
    enable = true;
    virtualHosts.default.locations."/".return = "200 ok";
  };
  networking.firewall.allowedTCPPorts = [ 80 ];

  # Seconds that a boot may take.
  pytest-nixos.bootBudget = 120;
}
