# What every host here has: a disk, a clock, an administrator, and a virtual machine without a screen.
{ config, lib, ... }:
let
  machine = {
    memorySize = lib.mkDefault 1536;
    cores = lib.mkDefault 2;
    diskSize = lib.mkDefault 2048;
    graphics = false;
  };
in
{
  system.stateVersion = "24.05";
  time.timeZone = "UTC";
  i18n.defaultLocale = "C.UTF-8";
  documentation.enable = false;

  fileSystems."/" = lib.mkIf (!config.boot.isContainer) (lib.mkDefault { device = "/dev/disk/by-label/nixos"; fsType = "ext4"; });
  boot.loader.grub.device = lib.mkIf (!config.boot.loader.systemd-boot.enable) (lib.mkDefault "/dev/vda");
  boot.initrd.systemd.enable = lib.mkDefault false;

  users.mutableUsers = false;
  users.users.admin = {
    isNormalUser = true;
    description = "Administrator";
    extraGroups = [ "wheel" ];
    # The private half of this key does not exist: nobody logs in by it.
    openssh.authorizedKeys.keys = [ "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIExampleKeyForPytestNixosThatNobodyHoldsXXXX admin@example" ];
    hashedPassword = "!";
  };
  security.sudo.execWheelOnly = true;
  # sudo would ask for the password that there is not, and nobody could ever change the host.
  security.sudo.extraRules = [ { users = [ "admin" ]; commands = [ { command = "/run/current-system/bin/switch-to-configuration"; options = [ "NOPASSWD" ]; } ]; } ];

  virtualisation.vmVariant.virtualisation = machine;
  virtualisation.vmVariantWithBootLoader.virtualisation = machine;
}
