# The system's top-level store path.
{ config, lib, pkgs, ... }:
let
  inherit (lib) mkOption types;

  failed = map (x: x.message) (lib.filter (x: !x.assertion) config.assertions);
  checked = value:
    if failed != [ ] then throw "\nFailed assertions:\n${lib.concatStringsSep "\n" (map (x: "- ${x}") failed)}"
    else lib.foldr (w: x: builtins.trace "warning: ${w}" x) value config.warnings;

  bySystemd = config.boot.initrd.enable && config.boot.initrd.systemd.enable;

  toplevel = pkgs.runCommand "nixos-system-${config.system.name}-${config.system.nixos.label}"
    {
      activationScript = config.system.activationScripts.script;
      dryActivationScript = config.system.dryActivationScript;
      passAsFile = [ "activationScript" "dryActivationScript" ];
    } ''
    mkdir $out
    ${config.system.systemBuilderCommands}
    echo -n "$out" > $TMPDIR/out
    sed "s|@out@|$out|g" "$activationScriptPath" > $out/activate
    sed "s|@out@|$out|g" "$dryActivationScriptPath" > $out/dry-activate
    chmod u+x $out/activate $out/dry-activate
    mkdir -p $out/bin
    ${config.system.extraSystemBuilderCmds}
  '';
in
{
  options.system = {
    name = mkOption { type = types.str; };
    build = mkOption { default = { }; description = "Attribute set of derivations used to set up the system."; type = types.submodule { freeformType = types.lazyAttrsOf (types.uniq types.unspecified); }; };
    extraSystemBuilderCmds = mkOption { type = types.lines; internal = true; default = ""; };
    systemBuilderCommands = mkOption { type = types.lines; internal = true; default = ""; };
    systemBuilderArgs = mkOption { type = types.attrsOf types.unspecified; internal = true; default = { }; };
    extraDependencies = mkOption { type = types.listOf types.pathInStore; default = [ ]; };
    checks = mkOption { type = types.listOf types.package; default = [ ]; };
    forbiddenDependenciesRegexes = mkOption { type = types.listOf types.str; default = [ ]; };
    includeBuildDependencies = mkOption { type = types.bool; default = false; };
    copySystemConfiguration = mkOption { type = types.bool; default = false; };
    replaceRuntimeDependencies = mkOption { type = types.listOf types.unspecified; default = [ ]; };
  };

  config = {
    system.name = lib.mkDefault (if config.networking.hostName == "" then "unnamed" else config.networking.hostName);
    system.systemBuilderCommands = ''
      ${lib.optionalString config.boot.kernel.enable ''
        ln -s ${config.boot.kernelPackages.kernel}/${config.system.boot.loader.kernelFile} $out/kernel
        ln -s ${config.system.modulesTree} $out/kernel-modules
        ln -s ${config.system.build.initialRamdisk}/${config.system.boot.loader.initrdFile} $out/initrd
        echo -n ${lib.escapeShellArg (toString config.boot.kernelParams)} > $out/kernel-params
      ''}
      stage2=${if bySystemd then "prepare-root" else "init"}
      cp ${config.system.build.bootStage2} $out/$stage2
      chmod u+w $out/$stage2
      sed -i "s|@systemConfig@|$out|g" $out/$stage2
      chmod 0555 $out/$stage2
      ${lib.optionalString bySystemd "cp ${config.systemd.package}/lib/systemd/systemd $out/init"}
      ln -s ${config.system.build.etc}/etc $out/etc
      ln -s ${config.system.path} $out/sw
      ln -s ${config.systemd.package} $out/systemd
      ln -s ${config.hardware.firmwareTree} $out/firmware
      echo -n "systemd ${toString config.systemd.package.interfaceVersion}" > $out/init-interface-version
      echo -n ${lib.escapeShellArg config.system.nixos.label} > $out/nixos-version
      echo -n "${pkgs.stdenv.hostPlatform.system}" > $out/system
    '' + lib.optionalString (config.system.extraDependencies ++ config.system.checks != [ ]) ''
      echo ${toString (config.system.extraDependencies ++ config.system.checks)} > $out/extra-dependencies
    '';
    system.build.toplevel = checked toplevel;
  };
}
