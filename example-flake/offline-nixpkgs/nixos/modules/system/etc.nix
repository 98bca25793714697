# /etc: a tree of links in the store, linked into place by the activation.
{ config, lib, pkgs, ... }:
let
  inherit (lib) mkOption types;
  entries = lib.filter (entry: entry.enable) (lib.attrValues config.environment.etc);

  tree = pkgs.runCommand "etc" { } (''
    mkdir -p $out/etc
    add() {
      local source=$1 target=$2 mode=$3 user=$4 group=$5 file
      case $source in
        *'*'*)
          mkdir -p "$out/etc/$target"
          for file in $source; do ln -s "$file" "$out/etc/$target/"; done
          return ;;
      esac
      mkdir -p "$out/etc/$(dirname "$target")"
      if [ -e "$out/etc/$target" ] && [ "$(readlink "$out/etc/$target")" != "$source" ]; then
        echo "duplicate entry $target" >&2
        exit 1
      fi
      ln -sfn "$source" "$out/etc/$target"
      if [ "$mode" != symlink ]; then
        echo "$mode" > "$out/etc/$target.mode"
        echo "$user" > "$out/etc/$target.uid"
        echo "$group" > "$out/etc/$target.gid"
      fi
    }
  '' + lib.concatMapStrings
    (entry: "add ${lib.escapeShellArgs [ "${entry.source}" entry.target entry.mode entry.user entry.group ]}\n")
    entries);
in
{
  options.environment.etc = mkOption {
    default = { };
    description = "Files in /etc.";
    type = types.attrsOf (types.submodule ({ name, config, options, ... }: {
      options = {
        enable = mkOption { type = types.bool; default = true; };
        target = mkOption { type = types.str; };
        text = mkOption { type = types.nullOr types.lines; default = null; };
        source = mkOption { type = types.path; };
        mode = mkOption { type = types.str; default = "symlink"; };
        uid = mkOption { type = types.int; default = 0; };
        gid = mkOption { type = types.int; default = 0; };
        user = mkOption { type = types.str; default = "+${toString config.uid}"; };
        group = mkOption { type = types.str; default = "+${toString config.gid}"; };
      };
      config = {
        target = lib.mkDefault name;
        source = lib.mkIf (config.text != null) (
          let file = pkgs.writeText "etc-${baseNameOf name}" config.text; in lib.mkOverride (options.text.highestPrio or 1000) file);
      };
    }));
  };

  config = {
    system.build.etc = tree;
    system.build.etcActivationCommands = ''
      echo "setting up /etc..."
      ${pkgs.python3}/bin/python3 -IS ${../../scripts/setup-etc.py} ${tree}/etc
    '';
    system.activationScripts.etc = { text = config.system.build.etcActivationCommands; deps = [ "users" "groups" "debianPaths" ]; };
  };
}
