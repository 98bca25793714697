# A workstation of the 8 GiB class that runs language models on its CPU.
{ lib, ... }:
{
  imports = [
    ../modules/base.nix
    ../modules/kernel.nix
    ../modules/sysctl.nix
    ../modules/network-sysctl.nix
    ../modules/zram.nix
    ../modules/memory.nix
    ../modules/firewall.nix
    ../modules/ssh.nix
    ../modules/notes.nix
    ../modules/ollama.nix
    ../modules/monitoring.nix
  ];

  networking.hostName = lib.mkDefault "llm-host";
  networking.nftables.enable = lib.mkDefault true;

  services.journald.extraConfig = ''
    SystemMaxUse=200M
    MaxRetentionSec=1month
  '';

  # A variant to switch to: the same machine, less willing to swap.
  specialisation.no-swap.configuration = {
    zramSwap.enable = lib.mkForce false;
    boot.kernel.sysctl."vm.swappiness" = lib.mkForce 10;
  };
}
