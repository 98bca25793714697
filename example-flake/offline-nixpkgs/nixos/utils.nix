# Helpers that modules get as `utils`.
{ lib, config }:
let
  inherit (lib) hasPrefix replaceStrings removePrefix removeSuffix;
in
rec {
  escapeSystemdPath = path:
    let
      trimmed = removeSuffix "/" (removePrefix "/" (toString path));
      safe = replaceStrings [ "-" " " "/" "@" ] [ "\\x2d" "\\x20" "-" "\\x40" ] trimmed;
    in
    if trimmed == "" then "-" else if hasPrefix "." safe then "\\x2e" + lib.substring 1 (lib.stringLength safe) safe else safe;

  escapeSystemdExecArg = argument:
    let text = if lib.isPath argument then "${argument}" else toString argument;
    in replaceStrings [ "%" "$" ] [ "%%" "$$" ] (builtins.toJSON text);
  escapeSystemdExecArgs = lib.concatMapStringsSep " " escapeSystemdExecArg;

  toShellPath = shell: if shell ? shellPath then "/run/current-system/sw${shell.shellPath}" else if lib.types.package.check shell then throw "${shell} is not a shell package" else shell;

  pathsNeededForBoot = [ "/" "/nix" "/nix/store" "/var" "/var/log" "/var/lib" "/var/lib/nixos" "/etc" "/usr" ];
  fsNeededForBoot = fs: fs.neededForBoot || lib.elem fs.mountPoint pathsNeededForBoot;

  removePackagesByName = packages: unwanted:
    let names = map lib.getName unwanted; in lib.filter (p: !(lib.elem (lib.getName p) names)) packages;
  systemdUtils = { };
}
