# nixpkgs' packages that hosts need, made of Debian's programs. All others stay nixpkgs' own, and cannot be built here.
{ programs, unpacked, stand-in }:
final: prev:
let
  inherit (prev) lib;

  index = lib.importJSON "${unpacked}/packages.json";
  # Upstream's 2.3 of Debian's 1:2.3-4+deb13u1.
  versionOf = deb: lib.last (builtins.match "([0-9]+:)?([^-+~]*).*" index.${deb}.version);

  outputs = [ "bin" "dev" "dnsutils" "doc" "host" "lib" "login" "man" "mount" "swap" "terminfo" ];

  # A package that has what modules may ask of any: `override`, a main program, all of its outputs in one.
  package = name: { debs, extra ? "", main ? name, passthru ? { }, copied ? [ ] }:
    let
      built = final.runCommand "${name}-${versionOf (lib.head debs)}"
        {
          inherit debs;
          COPIED = copied;
          pname = name;
          version = versionOf (lib.head debs);
          passthru = lib.genAttrs outputs (_: built) // passthru;
          meta = { mainProgram = main; platforms = lib.platforms.linux; };
        } ''
        ${programs}/usr/bin/python3 -S ${./farm.py} ${programs} $out $debs
        ${extra}
      '';
    in
    lib.makeOverridable (_: built) { };

  plain = lib.mapAttrs (name: debs: package name { inherit debs; }) (import ./packages.nix);
  # Modules look at these and no host here uses them; their own derivations would take seconds to evaluate.
  missing = lib.genAttrs [ "fish" "xonsh" "zsh" ] (name:
    final.runCommand name { pname = name; meta.mainProgram = name; passthru.shellPath = "/bin/${name}"; } "echo ${name} is not made of Debian's packages; exit 1");
  changed = import ./changed.nix { inherit lib final prev package programs; };
  machine = import ./machine.nix { inherit lib final package programs stand-in; };
in
{ debian = programs; } // plain // missing // changed // machine
