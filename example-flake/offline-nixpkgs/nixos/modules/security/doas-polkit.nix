# The rules of doas and of polkit, as nixpkgs' modules write them; neither program is here.
{ config, lib, ... }:
let
  inherit (lib) mkOption types;
  flag = default: mkOption { type = types.bool; inherit default; };
  texts = mkOption { type = types.listOf types.str; default = [ ]; };
  ids = mkOption { type = types.listOf (types.either types.str types.int); default = [ ]; };
  cfg = config.security;

  rule = types.submodule {
    options = {
      noPass = flag false;
      noLog = flag false;
      persist = flag false;
      keepEnv = flag false;
      setEnv = texts;
      users = ids;
      groups = ids;
      runAs = mkOption { type = types.nullOr types.str; default = null; };
      cmd = mkOption { type = types.nullOr types.str; default = null; };
      args = mkOption { type = types.nullOr (types.listOf types.str); default = null; };
    };
  };
  ruleLines = r:
    let
      option = condition: text: lib.optionalString condition "${text} ";
      options = option r.noPass "nopass" + option r.noLog "nolog" + option r.persist "persist" + option r.keepEnv "keepenv";
      set = "setenv { SSH_AUTH_SOCK TERMINFO TERMINFO_DIRS ${lib.concatStringsSep " " r.setEnv} }";
      command = option (r.runAs != null) "as ${toString r.runAs}" + option (r.cmd != null) "cmd ${toString r.cmd}"
        + lib.optionalString (r.args != null) "args ${lib.concatStringsSep " " r.args}";
    in
    lib.concatMapStrings (who: "permit ${options}${set} ${who} ${command}\n") (map toString r.users ++ map (g: ":${toString g}") r.groups);
in
{
  options.security = {
    doas = {
      enable = flag false;
      wheelNeedsPassword = flag true;
      extraRules = mkOption { type = types.listOf rule; default = [ ]; };
      extraConfig = mkOption { type = types.lines; default = ""; };
    };
    polkit = {
      enable = flag false;
      debug = flag false;
      extraConfig = mkOption { type = types.lines; default = ""; };
      adminIdentities = mkOption { type = types.listOf types.str; default = [ "unix-group:wheel" ]; };
    };
  };

  config = {
    security.doas.extraRules = lib.mkIf cfg.doas.enable (lib.mkOrder 600 [ { groups = [ "wheel" ]; noPass = !cfg.doas.wheelNeedsPassword; } ]);
    environment.etc = {
      "doas.conf" = lib.mkIf cfg.doas.enable {
        mode = "0440";
        text = ''
          # extraRules
          ${lib.concatMapStrings ruleLines cfg.doas.extraRules}
          # extraConfig
          ${cfg.doas.extraConfig}
          # "root" is allowed to do anything.
          permit nopass keepenv root
        '';
      };
      "polkit-1/rules.d/10-nixos.rules" = lib.mkIf cfg.polkit.enable {
        text = ''
          polkit.addAdminRule(function(action, subject) {
            return [${lib.concatMapStringsSep ", " (i: "\"${i}\"") cfg.polkit.adminIdentities}];
          });

          ${cfg.polkit.extraConfig}
        '';
      };
    };
  };
}
