# Consoles and the login prompts on them.
{ config, lib, pkgs, ... }:
let
  inherit (lib) mkOption types;
  cfg = config.services.getty;
  command = extra: lib.escapeShellArgs ([ "@${pkgs.util-linux}/sbin/agetty" "agetty" "--login-program" cfg.loginProgram ]
    ++ lib.optionals (cfg.autologinUser != null) [ "--autologin" cfg.autologinUser ] ++ lib.optionals (cfg.loginOptions != null) [ "--login-options" cfg.loginOptions ] ++ cfg.extraArgs) + " ${extra}";
in
{
  options.console = {
    enable = mkOption { type = types.bool; default = true; };
    font = mkOption { type = types.nullOr (types.either types.str types.path); default = null; };
    keyMap = mkOption { type = types.either types.str types.path; default = "us"; };
    colors = mkOption { type = types.listOf types.str; default = [ ]; };
    packages = mkOption { type = types.listOf types.package; default = [ ]; };
    useXkbConfig = mkOption { type = types.bool; default = false; };
    earlySetup = mkOption { type = types.bool; default = false; };
  };
  options.services.getty = {
    autologinUser = mkOption { type = types.nullOr types.str; default = null; };
    autologinOnce = mkOption { type = types.bool; default = false; };
    loginProgram = mkOption { type = types.path; default = "${pkgs.shadow}/bin/login"; };
    loginOptions = mkOption { type = types.nullOr types.str; default = null; };
    extraArgs = mkOption { type = types.listOf types.str; default = [ ]; };
    greetingLine = mkOption { type = types.str; default = "<<< Welcome to ${config.system.nixos.distroName} ${config.system.nixos.label} (\\m) - \\l >>>"; };
    helpLine = mkOption { type = types.lines; default = ""; };
  };
  config = {
    services.getty.loginProgram = lib.mkDefault "${pkgs.util-linux}/bin/login";
    environment.etc.issue = { mode = "0444"; text = "${cfg.greetingLine}\n${cfg.helpLine}\n"; };
    environment.etc."vconsole.conf".text = "KEYMAP=${toString config.console.keyMap}\n";
    systemd.services."getty@" = { serviceConfig.ExecStart = [ "" (command "--noclear --keep-baud %I 115200,38400,9600 $TERM") ]; environment.TTY = "%I"; };
    systemd.services."serial-getty@".serviceConfig.ExecStart = [ "" (command "%I --keep-baud $TERM") ];
    systemd.services."container-getty@" = { enable = true; serviceConfig.ExecStart = [ "" (command "--noclear --keep-baud pts/%I 115200,38400,9600 $TERM") ]; };
    systemd.services.console-getty = { enable = lib.mkDefault false; serviceConfig.ExecStart = [ "" (command "--noclear --keep-baud console 115200,38400,9600 $TERM") ]; };
    systemd.generators.systemd-getty-generator = "${pkgs.debian}/usr/lib/systemd/system-generators/systemd-getty-generator";
  };
}
