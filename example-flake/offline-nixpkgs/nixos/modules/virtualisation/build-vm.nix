# `virtualisation.vmVariant`: the host as a virtual machine, made by extending it.
{ config, lib, extendModules, ... }:
let
  inherit (lib) mkOption;
  variant = extendModules { modules = [ ./qemu-vm.nix ]; };
  bootLoaderVariant = variant.extendModules {
    modules = [
      ({ config, ... }: {
        virtualisation.useBootLoader = true;
        virtualisation.useEFIBoot = config.boot.loader.systemd-boot.enable || config.boot.loader.efi.canTouchEfiVariables;
      })
    ];
  };
in
{
  options.virtualisation = {
    vmVariant = mkOption { description = "Machine configuration to be added for the vm script produced by `nixos-rebuild build-vm`."; inherit (variant) type; default = { }; visible = "shallow"; };
    vmVariantWithBootLoader = mkOption { description = "Machine configuration to be added for the vm script produced by `nixos-rebuild build-vm-with-bootloader`."; inherit (bootLoaderVariant) type; default = { }; visible = "shallow"; };
  };
  config.system.build = {
    vm = lib.mkDefault config.virtualisation.vmVariant.system.build.vm;
    vmWithBootLoader = lib.mkDefault config.virtualisation.vmVariantWithBootLoader.system.build.vm;
  };
}
