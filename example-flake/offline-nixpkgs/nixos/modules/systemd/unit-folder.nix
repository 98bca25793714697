# Finished units, and folders of them as generateUnits of nixpkgs' systemd-lib.nix makes them: of the system and of the initial RAM disk.
{ lib, pkgs, unitOptions }:
let
  inherit (unitOptions) safe;
in
rec {
  # A declared unit with its finished text, and all of a kind by the names of their files.
  plain = renderer: unit: { inherit (unit) enable overrideStrategy wantedBy requiredBy upheldBy aliases; text = renderer unit; };
  named = renderer: lib.mapAttrs' (_: unit: lib.nameValuePair unit.name (plain renderer unit));
  unitsOption = lib.mkOption {
    default = { };
    type = lib.types.attrsOf (lib.types.submodule [ unitOptions.concrete ({ name, config, ... }: { config.unit = lib.mkDefault (fileOf name config); }) ]);
  };

  fileOf = name: unit: if unit.enable then pkgs.writeTextFile { name = "unit-${safe name}"; text = unit.text; destination = "/${name}"; }
    else pkgs.runCommand "unit-${safe name}-disabled" { } "mkdir -p $out; ln -s /dev/null $out/${lib.escapeShellArg name}";

  # units: of the host. upstreamUnits, upstreamWants: names of systemd's own. packages: that bring units. links: shell lines that link more.
  unitFolder = { name, package, packages, units, upstreamUnits, upstreamWants, links ? "" }: pkgs.runCommand name { } (''
    mkdir -p $out
    upstream=${package}/example/systemd/system
    for unit in ${toString upstreamUnits}; do
      if [ -L "$upstream/$unit" ]; then cp -P "$upstream/$unit" $out/
      elif [ -e "$upstream/$unit" ]; then ln -s "$upstream/$unit" $out/$unit
      fi
    done
    # A link in the upstream folder may name a unit that was left out.
    for link in $out/*; do
      [ -e "$link" ] || rm "$link"
    done
    for wants in ${toString upstreamWants}; do
      mkdir -p $out/$wants
      for link in $upstream/$wants/*; do
        [ -e "$out/''${link##*/}" ] && ln -s ../''${link##*/} $out/$wants/
      done
    done
    for package in ${toString packages}; do
      for file in $package/etc/systemd/system/* $package/lib/systemd/system/*; do
        [ -e "$file" ] || continue
        name=''${file##*/}
        if [ -d "$file" ]; then
          mkdir -p "$out/$name"
          for inner in "$file"/*; do ln -sfn "$inner" "$out/$name/"; done
        elif [ ! -e "$out/$name" ]; then ln -s "$file" "$out/$name"
        fi
      done
    done
    unit() {
      local name=$1 file=$2 strategy=$3
      if [ "$strategy" = asDropin ] || { [ "$strategy" = asDropinIfExists ] && [ -e "$out/$name" ] && [ "$(readlink "$file/$name")" != /dev/null ]; }; then
        mkdir -p "$out/$name.d"
        ln -s "$file/$name" "$out/$name.d/overrides.conf"
      else
        ln -sfn "$file/$name" "$out/$name"
      fi
    }
    link() {
      mkdir -p "$out/$(dirname "$2")"
      ln -sfn "$1" "$out/$2"
    }
  '' + lib.concatStrings (lib.mapAttrsToList
    (name: unit: "unit ${lib.escapeShellArgs [ name "${unit.unit}" (if unit.enable then unit.overrideStrategy else "mask") ]}\n"
      + lib.concatMapStrings (alias: "link ${lib.escapeShellArgs [ name alias ]}\n") unit.aliases
      + lib.concatMapStrings (target: "link ${lib.escapeShellArgs [ "../${name}" "${target}.wants/${name}" ]}\n") (lib.optionals unit.enable unit.wantedBy)
      + lib.concatMapStrings (target: "link ${lib.escapeShellArgs [ "../${name}" "${target}.requires/${name}" ]}\n") (lib.optionals unit.enable unit.requiredBy)
      + lib.concatMapStrings (target: "link ${lib.escapeShellArgs [ "../${name}" "${target}.upholds/${name}" ]}\n") (lib.optionals unit.enable unit.upheldBy))
    units) + links);
}
