# What a run without Nix needs of one host, as inputs of a derivation: the document that the plugin reads, the machine, the generations.
{ expressions, asked }:
let
  safe = import (expressions + "/safe.nix");
  facts = import (expressions + "/facts.nix") {
    inherit safe;
    paths = asked.facts;
    tunnelsOf = (import (expressions + "/tunnels.nix") { inherit safe; wanted = null; }).of;
  };
in
{
  pkgs,
  name,
  # An entry of nixosConfigurations, or what test-node.nix makes of a node.
  host,
  # What machine.nix returns for it, evaluated once for all that read it: first the one that tests share.
  machines,
  flake,
  # Option paths beside those that controls read, as lists of names.
  options,
  # Further generations: [ { backend; module; toplevel; } ].
  generations ? [ ],
}:
let
  inherit (pkgs) lib;

  # Written as a module writes it: a name with another sign is quoted.
  optionPath = lib.concatMapStringsSep "." (
    part: if builtins.match "[A-Za-z0-9_'-]+" part != null then part else "\"${part}\""
  );
  questions =
    asked.options
    ++ map (names: {
      inherit names;
      path = optionPath names;
    }) options;

  documentOf = machine: import (expressions + "/host-config.nix") {
    inherit safe facts;
    cardsOf = import (expressions + "/cards.nix") {
      inherit safe;
      salt = name;
    };
    machineOf = _: machine;
    request = {
      host = name;
      options = map (question: question.names) questions;
      skippedFacts = [ ];
      refuseImage = false;
    };
  } { ${name} = host; };

  # A file of its own: it is most of a megabyte, and would be parsed, quoted and hashed again with each text that it stood in. Store paths
  # that its texts name no check reads.
  documentFile =
    machine:
    builtins.toFile "pytest-nixos-document.json" (
      builtins.unsafeDiscardStringContext (builtins.toJSON (documentOf machine))
    );

  built =
    lib.concatMap (machine: [
      machine.package
      machine.toplevel
    ]) machines
    ++ map (each: each.toplevel) generations;
  closure = pkgs.closureInfo { rootPaths = built; };
in
{
  inherit closure;
  document = documentOf (lib.head machines);

  # What a derivation needs beside the directory.
  inputs = built ++ lib.optional (flake != null) "${flake}";

  directory = pkgs.writeTextDir "prepared.json" (
    builtins.toJSON {
      format = 3;
      flake = if flake == null then "self" else flake.sourceInfo.url or "self";
      host = name;
      options = map (question: question.path) questions;
      machines = map (machine: {
        inherit (machine) backend;
        document = "${documentFile machine}";
        package = "${machine.package}";
      }) machines;
      closure = "${closure}";
      generations = map (
        {
          backend,
          module,
          toplevel,
        }:
        {
          inherit backend module;
          toplevel = "${toplevel}";
        }
      ) generations;
      source = if flake == null then null else "${flake}";
    }
  );
}
