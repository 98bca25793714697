# What a host says to pytest-nixos, beside the options that it is about; read from passthru, where any host can also write it by hand.
{ config, lib, ... }:
let
  inherit (lib) mkOption types;

  text = description: mkOption {
    type = types.str;
    inherit description;
  };

  waiver = types.submodule {
    options = {
      control = text "Id of the control that is waived.";
      reason = text "Why.";
      owner = text "Who answers for it.";
      expires = mkOption {
        type = types.strMatching "[0-9]{4}-[0-9]{2}-[0-9]{2}";
        example = "2027-03-31";
        description = "Last day on which it counts.";
      };
    };
  };
in
{
  options.pytest-nixos = {
    bootBudget = mkOption {
      type = types.nullOr types.ints.positive;
      default = null;
      example = 45;
      description = "Seconds that the boot may take; BOOT-005 fails above.";
    };
    profiles = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [ "hardened" ];
      description = "Profiles of controls that lib.checkHost judges this host by, unless it is given others.";
    };
    waivers = mkOption {
      type = types.listOf waiver;
      default = [ ];
      description = "Dated, reasoned exceptions for this host.";
    };
  };

  config.passthru.pytest-nixos = lib.filterAttrs (_: value: value != null && value != [ ]) {
    inherit (config.pytest-nixos) bootBudget profiles waivers;
  };
}
