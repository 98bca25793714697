# Names that belong to nixpkgs rather than to a language: release, licences, platforms, systemd's escaping.
{ lib }:
rec {
  release = "25.11";
  oldestSupportedRelease = 2505;
  version = "${release}.offline-stand-in";
  versionSuffix = ".offline-stand-in";
  isInOldestRelease = _: true;
  oldestSupportedReleaseIsAtLeast = _: true;
  trivialVersion = version;

  # Argument names of a function, a functor or a function with declared arguments.
  functionArgs' = f: if f ? __functor then f.__functionArgs or (functionArgs' (f.__functor f)) else builtins.functionArgs f;

  # `b` over `a`; where the predicate holds (path, value of a, value of b) b's value is taken whole.
  recursiveUpdateUntil = stop:
    let
      go = path: a: b: a // builtins.mapAttrs
        (name: value:
          let here = path ++ [ name ]; in
          if !(a ? ${name}) || stop here a.${name} value then value else go here a.${name} value)
        b;
    in
    go [ ];
  updateManyAttrsByPath = updates: set: lib.foldl' (acc: u: recursiveUpdateUntil (_: _: _: false) acc (lib.setAttrByPath u.path (u.update (lib.attrByPath u.path null acc)))) set updates;

  nixosSystem = throw "lib.nixosSystem comes from the flake's outputs";
  licenses = lib.genAttrs [ "mit" "asl20" "gpl2Plus" "gpl3Plus" "lgpl21Plus" "bsd3" "free" ] (name: { shortName = name; free = true; });
  maintainers = { };
  teams = { };
  platforms = { linux = [ "x86_64-linux" "aarch64-linux" ]; all = [ "x86_64-linux" "aarch64-linux" ]; unix = platforms.linux; };
  systems = {
    flakeExposed = [ "x86_64-linux" ];
    elaborate = system: { inherit system; isLinux = true; isx86_64 = system == "x86_64-linux"; };
  };
}
