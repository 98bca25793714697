# Building store paths with programs of the Debian tree: a static bash, busybox, and others through the tree's own loader.
{ lib, debian, system, bash }:
let
  shell = "${debian}/usr/bin/bash-static";

  # Programs named by busybox, so that a build has an ordinary PATH.
  applets = derivation {
    name = "busybox-applets";
    inherit system;
    builder = "${debian}/usr/bin/busybox";
    args = [ "sh" "-c" "${debian}/usr/bin/busybox mkdir -p $out/bin && ${debian}/usr/bin/busybox --install -s $out/bin" ];
  };

  prelude = ''
    set -eu
    export PATH=${applets}/bin SHELL=${shell} HOME=/homeless-shelter
    debian=${debian}
    # Run a program of the tree wherever this build happens.
    tree() {
      local name=$1 program
      shift
      for program in "$debian/usr/bin/$name" "$debian/usr/sbin/$name"; do
        [ -e "$program" ] || continue
        "$debian/usr/lib64/ld-linux-x86-64.so.2" --library-path "$debian/usr/lib/x86_64-linux-gnu" --argv0 "$name" "$program" "$@"
        return
      done
      echo "no program $name in the tree" >&2
      return 1
    }
  '';

  withMeta = drv: attributes: drv // {
    meta = attributes.meta or { };
    passthru = attributes.passthru or { };
    overrideAttrs = f: withMeta drv attributes;
    override = _: withMeta drv attributes;
  } // (attributes.passthru or { }) // lib.optionalAttrs (attributes ? version) { inherit (attributes) version; } // lib.optionalAttrs (attributes ? pname) { inherit (attributes) pname; };
in
rec {
  inherit applets shell;

  runCommand = name: attributes: command:
    withMeta
      (derivation ({
        inherit name system;
        builder = shell;
        args = [ "-c" "${prelude}source \"$buildCommandPath\"" ];
        buildCommand = command;
        passAsFile = [ "buildCommand" ] ++ (attributes.passAsFile or [ ]);
        preferLocalBuild = true;
        allowSubstitutes = false;
      } // removeAttrs attributes [ "passAsFile" "meta" "passthru" "nativeBuildInputs" "buildInputs" "version" "pname" ]))
      attributes;
  runCommandLocal = runCommand;
  runCommandNoCC = runCommand;

  writeTextFile = { name, text, executable ? false, destination ? "", checkPhase ? "", meta ? { }, ... }:
    runCommand name { inherit text meta; passAsFile = [ "text" ]; } ''
      target=$out${lib.optionalString (destination != "") (lib.escapeShellArg destination)}
      mkdir -p "$(dirname "$target")"
      cp "$textPath" "$target"
      chmod ${if executable then "0555" else "0444"} "$target"
    '';
  writeText = name: text: writeTextFile { inherit name text; };
  writeTextDir = path: text: writeTextFile { name = baseNameOf path; inherit text; destination = "/${path}"; };
  writeScript = name: text: writeTextFile { inherit name text; executable = true; };
  writeScriptBin = name: text: writeTextFile { inherit name text; executable = true; destination = "/bin/${name}"; meta.mainProgram = name; };
  writeShellScript = name: text: writeScript name "#!${bash}/bin/bash\n${text}";
  writeShellScriptBin = name: text: writeScriptBin name "#!${bash}/bin/bash\n${text}";
  writeShellApplication = { name, text, runtimeInputs ? [ ], runtimeEnv ? { }, ... }: writeShellScriptBin name ''
    set -o errexit -o nounset -o pipefail
    ${lib.concatStrings (lib.mapAttrsToList (key: value: "export ${lib.toShellVar key value}\n") (if runtimeEnv == null then { } else runtimeEnv))}
    ${lib.optionalString (runtimeInputs != [ ]) "export PATH=\"${lib.makeBinPath runtimeInputs}:$PATH\""}
    ${text}
  '';
  concatTextFile = { name, files, ... }: runCommand name { } "cat ${lib.escapeShellArgs files} > $out";
  concatText = name: files: concatTextFile { inherit name files; };

  linkFarm = name: entries:
    let
      list = if lib.isAttrs entries then lib.mapAttrsToList (name: path: { inherit name path; }) entries else entries;
      link = entry: ''
        mkdir -p "$out/$(dirname ${lib.escapeShellArg entry.name})"
        ln -s ${lib.escapeShellArg "${entry.path}"} "$out"/${lib.escapeShellArg entry.name}
      '';
    in
    runCommand name { } ("mkdir -p $out\n" + lib.concatMapStrings link list);

  # Folders of all paths merged into one, as symbolic links. The first path that has a file wins.
  buildEnv = { name, paths, pathsToLink ? [ "/" ], postBuild ? "", ... }:
    runCommand name { } ''
      mkdir -p $out
      merge() {
        local from=$1 to=$2 entry existing
        for entry in "$from"/* "$from"/.[!.]*; do
          [ -e "$entry" ] || [ -L "$entry" ] || continue
          existing=$to/''${entry##*/}
          if [ ! -e "$existing" ] && [ ! -L "$existing" ]; then
            ln -s "$entry" "$existing"
          elif [ -d "$entry" ] && [ -d "$existing" ]; then
            if [ -L "$existing" ]; then
              local old
              old=$(readlink "$existing")
              rm "$existing"
              mkdir "$existing"
              merge "$old" "$existing"
            fi
            merge "$entry" "$existing"
          fi
        done
      }
      for path in ${lib.concatMapStringsSep " " (path: lib.escapeShellArg "${path}") paths}; do
        for link in ${lib.escapeShellArgs pathsToLink}; do
          link=''${link#/}
          [ -d "$path/$link" ] || continue
          if [ -n "$link" ]; then mkdir -p "$out/$link"; fi
          merge "$path''${link:+/$link}" "$out''${link:+/$link}"
        done
      done
      ${postBuild}
    '';
  symlinkJoin = { name, paths, postBuild ? "", ... }: buildEnv { inherit name paths postBuild; };

  # Store paths that the roots need, with what a Nix database has to know about them.
  closureInfo = { rootPaths }:
    withMeta
      (derivation {
        name = "closure-info";
        inherit system;
        builder = shell;
        __structuredAttrs = true;
        exportReferencesGraph.closure = rootPaths;
        args = [
          "-c"
          ''
            source "$NIX_BUILD_TOP/.attrs.sh"
            out=''${outputs[out]}
            ${prelude}
            mkdir -p $out
            graph=$NIX_BUILD_TOP/.attrs.json
            tree jq -r '.closure[].path' "$graph" | sort > $out/store-paths
            tree jq -r '.closure[] | [.path, .narHash, .narSize, "", (.references | length)] + .references | .[] | tostring' "$graph" > $out/registration
            tree jq '[.closure[].narSize] | add' "$graph" > $out/total-nar-size
          ''
        ];
      })
      { };
}
