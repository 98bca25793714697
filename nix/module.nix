# What a host says to pytest-nixos, beside the options that it is about; read from passthru, where any host can also write it by hand.
{ config, lib, ... }:
{
  options.pytest-nixos = {
    bootBudget = lib.mkOption {
      type = lib.types.nullOr lib.types.ints.positive;
      default = null;
      example = 45;
      description = "Seconds that the boot may take; BOOT-005 fails above.";
    };
  };

  config.passthru.pytest-nixos = lib.filterAttrs (_: value: value != null) {
    inherit (config.pytest-nixos) bootBudget;
  };
}
