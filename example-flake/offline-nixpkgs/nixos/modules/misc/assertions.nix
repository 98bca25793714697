{ lib, ... }:
let inherit (lib) mkOption types;
in
{
  options = {
    assertions = mkOption { type = types.listOf types.unspecified; internal = true; default = [ ]; description = "Conditions that must hold for the evaluation to succeed."; };
    warnings = mkOption { type = types.listOf types.str; internal = true; default = [ ]; description = "Messages shown when the configuration is built."; };
  };
}
