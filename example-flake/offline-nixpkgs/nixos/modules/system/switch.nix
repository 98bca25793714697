# bin/switch-to-configuration.
{ config, lib, pkgs, ... }:
let
  inherit (lib) mkOption types;
  settings = pkgs.writeText "switch-settings.json" (builtins.toJSON {
    systemd = "${config.systemd.package}";
    util_linux = "${pkgs.util-linux}";
    install_boot_loader = "${config.system.build.installBootLoader}";
    distro_id = config.system.nixos.distroId;
    pre_switch_checks = "${config.system.preSwitchChecksScript}";
  });
in
{
  options.system.switch = {
    enable = mkOption { type = types.bool; default = true; };
    enableNg = mkOption { type = types.bool; default = true; };
  };
  options.system.preSwitchChecks = mkOption { type = types.attrsOf types.str; default = { }; };
  options.system.preSwitchChecksScript = mkOption {
    type = types.package;
    internal = true;
    default = pkgs.writeShellScript "pre-switch-checks" (lib.concatStrings (lib.mapAttrsToList (name: text: ''
      (
      ${text}
      )
      if [[ $? != 0 ]]; then
        echo "Pre-switch check '${name}' failed" >&2
        exit 1
      fi
    '') config.system.preSwitchChecks));
  };
  config = lib.mkIf config.system.switch.enable {
    system.extraSystemBuilderCmds = ''
      cat > $out/bin/switch-to-configuration <<EOF
      #!${pkgs.runtimeShell}
      export OUT=$out
      exec ${pkgs.python3}/bin/python3 -IS ${../../scripts/switch-to-configuration.py} ${settings} $out "\$@"
      EOF
      chmod +x $out/bin/switch-to-configuration
    '';
  };
}
