# Programs with set-user-id bits or capabilities, in /run/wrappers/bin.
{ config, lib, pkgs, ... }:
let
  inherit (lib) mkOption types;
  wrapper = { name, ... }: {
    options = {
      enable = mkOption { type = types.bool; default = true; };
      source = mkOption { type = types.path; };
      program = mkOption { type = types.str; default = name; };
      owner = mkOption { type = types.str; };
      group = mkOption { type = types.str; };
      permissions = mkOption { type = types.strMatching "[0-7]{3,4}|.*"; default = "u+rx,g+x,o+x"; };
      capabilities = mkOption { type = types.commas; default = ""; };
      setuid = mkOption { type = types.bool; default = false; };
      setgid = mkOption { type = types.bool; default = false; };
    };
  };
  enabled = lib.filter (w: w.enable) (lib.attrValues config.security.wrappers);
  copy = "cp --dereference ${lib.concatMapStringsSep " " (w: w.source) (lib.filter sameName enabled)} \"$folder/\"\n"
    + lib.concatMapStrings (w: "cp --dereference ${w.source} \"$folder/${w.program}\"\n") (lib.filter (w: !(sameName w)) enabled);
  sameName = w: baseNameOf w.source == w.program;
  # One program at a time costs a boot several seconds where processors are emulated, so what is alike is done together.
  restrict = w: ''
    ${lib.optionalString (w.owner != "root" || w.group != "root") "chown ${w.owner}:${w.group} \"$folder/${w.program}\""}
    ${lib.optionalString (w.capabilities != "") "setcap ${w.capabilities} \"$folder/${w.program}\""}
  '';
  modeOf = w: "u${if w.setuid then "+" else "-"}s,g${if w.setgid then "+" else "-"}s,${w.permissions}";
  modes = lib.concatStrings (lib.mapAttrsToList
    (mode: alike: "chmod ${mode} ${lib.concatMapStringsSep " " (w: "\"$folder/${w.program}\"") alike}\n")
    (lib.groupBy modeOf enabled));
  setuid = source: { setuid = true; owner = "root"; group = "root"; inherit source; };
in
{
  options.security.wrappers = mkOption { type = types.attrsOf (types.submodule wrapper); default = { }; };
  options.security.wrapperDir = mkOption { type = types.path; default = "/run/wrappers/bin"; internal = true; };
  options.security.wrapperDirSize = mkOption { type = types.str; default = "50%"; };
  options.security.enableWrappers = mkOption { type = types.bool; default = true; };

  config = {
    security.wrappers = {
      mount = setuid "${pkgs.util-linux}/bin/mount";
      umount = setuid "${pkgs.util-linux}/bin/umount";
      su = setuid "${pkgs.util-linux}/bin/su";
      passwd = setuid "${pkgs.shadow}/bin/passwd";
      newgrp = setuid "${pkgs.shadow}/bin/newgrp";
      sg = setuid "${pkgs.shadow}/bin/sg";
      chsh = setuid "${pkgs.shadow}/bin/chsh";
      unix_chkpwd = setuid "${pkgs.debian}/usr/sbin/unix_chkpwd";
      ping = { owner = "root"; group = "root"; capabilities = "cap_net_raw+p"; source = "${pkgs.iputils}/bin/ping"; };
    };
    systemd.services.suid-sgid-wrappers = {
      description = "Create SUID/SGID Wrappers";
      wantedBy = [ "sysinit.target" ];
      before = [ "sysinit.target" "shutdown.target" ];
      conflicts = [ "shutdown.target" ];
      after = [ "systemd-sysusers.service" ];
      unitConfig.DefaultDependencies = false;
      unitConfig.RequiresMountsFor = [ "/nix/store" "/run/wrappers" ];
      serviceConfig.Type = "oneshot";
      serviceConfig.RemainAfterExit = true;
      path = [ pkgs.libcap ];
      script = ''
        mkdir -p /run/wrappers
        chmod 755 /run/wrappers
        folder=$(mktemp --directory --tmpdir=/run/wrappers wrappers.XXXXXXXXXX)
        chmod a+rx "$folder"
        ${copy}
        chmod 0000 "$folder"/*
        ${lib.concatMapStrings restrict enabled}
        ${modes}
        old=$(readlink /run/wrappers/bin || :)
        ln --symbolic --force --no-dereference "$folder" /run/wrappers/bin-tmp
        mv --no-target-directory /run/wrappers/bin-tmp /run/wrappers/bin
        if [ -n "$old" ]; then rm --force --recursive "$old"; fi
      '';
    };
  };
}
