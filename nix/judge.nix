# lib.judge: a line of a NixOS test's testScript that judges one of its nodes.
#
# The node's config is evaluated here, as in checkHost; the test driver runs the commands (judge/in_driver.py).
{ expressions, asked }:
let
  nodeAsHost = import (expressions + "/test-node.nix");
  prepare = import ./prepared.nix { inherit expressions asked; };
  safe = import (expressions + "/safe.nix");
in
{
  # nodes.<name>, as testScript gets it.
  node,
  # What reports call it.
  name ? node.networking.hostName,
  # What the testScript calls the machine.
  machine ? null,
  # Of the machine that runs the test.
  pkgs ? node.virtualisation.host.pkgs,
  pytest-nixos,
  flake ? null,
  profiles ? null,
  suites ? [ ],
  tests ? [ ],
  waivers ? null,
  failOn ? "low",
  options ? [ ],
  arguments ? [ ],
  # Whether a failed check fails the test.
  enforce ? true,
}:
let
  inherit (pkgs) lib;

  refuse = reason: throw "pytest-nixos: judge: ${reason}";
  isNode = node ? system.build.toplevel && node ? networking.hostName;
  isContainer = safe.get node [ "boot" "isContainer" ] false;

  # As the driver makes a variable of a name.
  variable = lib.stringAsChars (sign: if builtins.match "[A-Za-z0-9_]" sign == null then "_" else sign);
  startsWithDigit = text: builtins.match "[0-9].*" text != null;
  variableOf =
    text:
    let
      found = variable text;
    in
    if startsWithDigit found then "_" + lib.substring 1 (-1) found else found;

  host = nodeAsHost node;
  prepared = prepare {
    inherit
      pkgs
      name
      host
      flake
      options
      ;
    # What runs is the test's; nothing is started, so its run script is not needed.
    machines = [
      (
        host.asMachine
        // {
          package = host.asMachine.toplevel;
          program = "";
        }
      )
    ];
  };

  command = import ./pytest-arguments.nix { inherit lib refuse; } {
    inherit pytest-nixos suites tests waivers failOn arguments;
    inherit (prepared) directory;
    profiles =
      if profiles == null then
        safe.get node [ "passthru" "pytest-nixos" "profiles" ] [ ]
      else
        profiles;
  };

  spec = pkgs.writeText "pytest-nixos-${name}.json" (
    builtins.toJSON { inherit name enforce command; }
  );
in
if !isNode then
  refuse "node is no evaluated node: give nodes.<name> of testScript = { nodes, ... }: ..."
else if isContainer then
  refuse "${name} is a container; it judges the VMs of a test (`nodes`)"
else
  # One line, so that it may stand at any indentation.
  ''__import__("runpy").run_path("${./judge/in_driver.py}")["judge"](${
    if machine == null then variableOf node.system.name else machine
  }, "${spec}")''
