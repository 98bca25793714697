# Development shells: `stdenv` as far as they need it, `mkShell` and `mkShellNoCC`.
{ lib, pkgs, runCommand, system }:
let
  # What every shell has on PATH, as nixpkgs' stdenv has (without a compiler).
  initialPath = [ pkgs.coreutils pkgs.findutils pkgs.diffutils pkgs.gnused pkgs.gnugrep pkgs.gawk pkgs.gnutar pkgs.gzip pkgs.bzip2 pkgs.bash pkgs.patch pkgs.xz ];

  # Sourced by builders and by `nix develop`: programs of the inputs come before those that every shell has.
  setup = runCommand "stdenv-offline" { } ''
    mkdir $out
    cat > $out/setup <<'END'
    export PATH=
    addToSearchPath() {
      [ -d "$2" ] && export "$1=''${!1}''${!1:+:}$2" || :
    }
    seen=" "
    addInput() {
      local more
      case "$seen" in *" $1 "*) return 0 ;; esac
      seen+="$1 "
      addToSearchPath PATH "$1/bin"
      addToSearchPath XDG_DATA_DIRS "$1/share"
      if [ -e "$1/nix-support/propagated-build-inputs" ]; then
        for more in $(< "$1/nix-support/propagated-build-inputs"); do addInput "$more"; done
      fi
      if [ -e "$1/nix-support/setup-hook" ]; then source "$1/nix-support/setup-hook"; fi
    }
    for input in ''${nativeBuildInputs-} ''${propagatedNativeBuildInputs-}; do addInput "$input"; done
    if [ -z "''${strictDeps-}" ]; then
      for input in ''${buildInputs-} ''${propagatedBuildInputs-}; do addInput "$input"; done
    fi
    for input in @initialPath@; do addInput "$input"; done
    unset input
    export SHELL=@bash@/bin/bash
    genericBuild() { eval "''${buildCommand-}"; }
    END
    sed -i -e "s|@initialPath@|${toString initialPath}|" -e "s|@bash@|${pkgs.bash}|" $out/setup
  '';

  mkDerivation = arguments:
    let
      inputs = [ "nativeBuildInputs" "buildInputs" "propagatedNativeBuildInputs" "propagatedBuildInputs" ];
      attributes = removeAttrs arguments [ "env" "meta" "passthru" "pname" "version" ] // arguments.env or { };
      drv = derivation (lib.genAttrs inputs (_: [ ]) // {
        inherit system stdenv;
        name = "${arguments.pname}-${arguments.version}";
        builder = "${pkgs.bash}/bin/bash";
        args = [ "-e" (builtins.toFile "builder.sh" "source $stdenv/setup\ngenericBuild\n") ];
        outputs = [ "out" ];
        strictDeps = false;
      } // attributes);
    in
    drv // { meta = arguments.meta or { }; passthru = arguments.passthru or { }; };

  mkShellNoCC = { name ? "nix-shell", packages ? [ ], inputsFrom ? [ ], shellHook ? "", ... }@arguments:
    let
      merged = attribute: arguments.${attribute} or [ ]
        ++ lib.subtractLists inputsFrom (lib.concatMap (input: input.${attribute} or [ ]) inputsFrom);
      hooks = lib.filter (hook: hook != "") (map (input: input.shellHook or "") (lib.reverseList inputsFrom) ++ [ shellHook ]);
    in
    mkDerivation (removeAttrs arguments [ "packages" "inputsFrom" ] // {
      inherit name;
      nativeBuildInputs = packages ++ merged "nativeBuildInputs";
      buildInputs = merged "buildInputs";
      propagatedBuildInputs = merged "propagatedBuildInputs";
      propagatedNativeBuildInputs = merged "propagatedNativeBuildInputs";
      shellHook = lib.concatStringsSep "\n" hooks;
      # Built only to be kept: what the shell refers to.
      buildCommand = "export > $out";
      preferLocalBuild = true;
    });

  stdenv = setup // {
    inherit system mkDerivation;
    shell = "${pkgs.bash}/bin/bash";
    hostPlatform = { inherit system; isLinux = true; isx86_64 = true; isx86 = true; isAarch64 = false; is64bit = true; qemuArch = "x86_64"; linuxArch = "x86_64"; config = "x86_64-unknown-linux-gnu"; };
    buildPlatform = stdenv.hostPlatform;
    targetPlatform = stdenv.hostPlatform;
    isLinux = true;
  };
in
{ inherit stdenv mkShellNoCC; mkShell = mkShellNoCC; }
