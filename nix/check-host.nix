# lib.checkHost: a derivation that starts a host's machine in the build sandbox and judges it; lib.checkHostReport keeps the
# reports whatever the verdict.
#
# Evaluation happens here: the document that the plugin reads, and the machine, are inputs of the derivation. The builder has no Nix,
# no network and no home. What needs Nix while it runs (`nix flake check`, generations that nobody named) is not applicable there and says so.
{ expressions, channelScript, asked }:
{
  # An entry of nixosConfigurations.
  host,
  pkgs ? host.pkgs,
  # The program pytest with this plugin in its environment.
  pytest-nixos,
  name ? host.config.networking.hostName,
  # The flake itself (self), for the controls that judge its files.
  flake ? null,
  # By default what the host asks for, passthru.pytest-nixos.profiles.
  profiles ? null,
  suites ? [ ],
  # Files or directories of tests of your own.
  tests ? [ ],
  # auto or vm; a container's host is refused, see docs/how-to/nix-checks.md.
  backend ? "auto",
  waivers ? null,
  failOn ? "low",
  memoryMiB ? null,
  cores ? null,
  # Option paths that controls or tests of your own read, as lists of names.
  options ? [ ],
  # Files of modules, of generations that tests of your own build: nixos_generations.build(text of the file). The suite rollback's is
  # there.
  generations ? [ ],
  # Whether there are generations at all; without, the suite rollback is not applicable, and the host is evaluated once less.
  rollback ? true,
  # More arguments of pytest.
  arguments ? [ ],
  requiredSystemFeatures ? null,
  # Whether a failed check fails the build.
  enforce ? true,
}:
let
  inherit (pkgs) lib;

  safe = import "${expressions}/safe.nix";
  facts = import "${expressions}/facts.nix" { inherit safe; paths = asked.facts; };
  instrumentation = variant: import "${expressions}/instrumentation.nix" (
    {
      inherit channelScript memoryMiB cores;
      restrictNetwork = true;
    }
    // variant
  );
  saving = import "${expressions}/store-image.nix" { inherit safe; wanted = false; };
  testSecrets = import "${expressions}/test-secrets.nix" {
    inherit safe;
    wanted = {
      mode = "test";
      # Files that the user gives for paths that the config names.
      files = builtins.any (argument: lib.hasPrefix "--nixos-secret" (toString argument)) arguments;
    };
  };
  cardsOf = import "${expressions}/cards.nix" { inherit safe; salt = name; };
  machineWith =
    delta:
    import "${expressions}/machine.nix" {
      inherit safe backend instrumentation saving testSecrets cardsOf delta;
      standIn = false;
      declaredDisks = import "${expressions}/declared-disks.nix" { inherit safe; wanted = false; };
      ownDisks = false;
    };
  machineOf = machineWith { };

  changedSysctl = safe.get host [ "config" "boot" "kernel" "sysctl" asked.rollbackSysctl ] null;
  changedModule =
    if machine.backend == "vm" && changedSysctl != null then
      ./rollback/changed.nix
    else
      ./rollback/changed-but-sysctl.nix;
  changed = map (file: {
    module = builtins.readFile file;
    toplevel = (machineWith (import file) host).toplevel;
  }) (lib.optional rollback changedModule ++ generations);
  # Written as a module writes it: a name with another sign is quoted.
  optionPath = lib.concatMapStringsSep "." (
    part: if builtins.match "[A-Za-z0-9_'-]+" part != null then part else "\"${part}\""
  );
  questions = asked.options ++ map (names: { inherit names; path = optionPath names; }) options;
  document = import "${expressions}/host-config.nix" {
    inherit safe facts machineOf cardsOf;
    request = {
      host = name;
      options = map (question: question.names) questions;
      skippedFacts = [ ];
      refuseImage = false;
    };
  } { ${name} = host; };

  machine = machineOf host;
  problems = {
    no-config = "it has no config: give an entry of nixosConfigurations";
    no-extend-modules = "it has no extendModules: make it with nixpkgs.lib.nixosSystem of 22.05 or newer";
    no-vm-variant = "its nixpkgs has no virtualisation.vmVariant: it needs 22.05 or newer";
  };
  startsNoContainer = "it runs as a ${machine.backend}, which needs root and Nix's database; a build has neither. Test it with"
    + " `pytest --nixos-flake .#${name}`, and name the other hosts: checkFlake self { hosts = [ ... ]; }";
  refuse = reason: throw "pytest-nixos: checkHost: ${name}: ${reason}";

  # As for NixOS's own tests.
  features =
    if requiredSystemFeatures != null then requiredSystemFeatures else [ "kvm" "nixos-test" ];

  # Texts of the document name store paths that no check reads; what is needed comes as `machine` and `closure`.
  prepared = pkgs.writeTextDir "prepared.json" (
    builtins.toJSON {
      format = 2;
      flake = if flake == null then "self" else flake.sourceInfo.url or "self";
      host = name;
      options = map (question: question.path) questions;
      document = builtins.fromJSON (builtins.unsafeDiscardStringContext (builtins.toJSON document));
      machine = "${machine.package}";
      closure = "${closure}";
      generations = map ({ module, toplevel }: { inherit module; toplevel = "${toplevel}"; }) changed;
      source = if flake == null then null else "${flake}";
    }
  );
  closure = pkgs.closureInfo { rootPaths = [ machine.package machine.toplevel ] ++ map (each: each.toplevel) changed; };

  # The option passthru has no default, and what has none throws.
  asksFor = safe.get host [ "config" "passthru" "pytest-nixos" "profiles" ] [ ];
  judgedBy = if profiles == null then asksFor else profiles;

  repeated = option: values: lib.concatMap (value: [ option value ]) values;
  command = lib.escapeShellArgs (
    [ "${pytest-nixos}/bin/pytest" "--nixos-prepared" "${prepared}" ]
    ++ repeated "--nixos-profile" judgedBy
    ++ repeated "--nixos-suite" suites
    # pytest would take the store for the root of the tests: it sees a path there before it knows the option.
    ++ [ "--rootdir" "." "--nixos-fail-on" failOn "--nixos-snapshot" "off" "-p" "no:cacheprovider" ]
    ++ lib.optionals (waivers != null) [ "--nixos-waivers" "${waivers}" ]
    # The build sandbox keeps the run script and QEMU apart already, and lets nobody make another one.
    ++ [ "--nixos-run-script-has-my-rights" ]
    ++ map (test: "${test}") tests
    ++ map toString arguments
  );
in
if !(host ? config) then
  refuse problems.no-config
else if machine ? problem then
  refuse problems.${machine.problem}
else
  pkgs.runCommand "pytest-nixos-${name}"
    {
      requiredSystemFeatures = features;
      passthru = { inherit prepared machine document; };
      # What the derivation needs beside the text of its command.
      inherit closure;
      inputs = [ machine.package machine.toplevel ] ++ map (each: each.toplevel) changed ++ lib.optional (flake != null) "${flake}";
      meta.description = "What pytest-nixos says of the host ${name}";
    }
    ''
      ${lib.optionalString (machine.backend != "vm") (refuse startsNoContainer)}
      mkdir -p $out/nix-support home
      export HOME=$PWD/home XDG_CACHE_HOME=$PWD/cache XDG_STATE_HOME=$PWD/state XDG_RUNTIME_DIR=$PWD/run
      mkdir -p -m 700 "$XDG_RUNTIME_DIR"
      set +e
      ${command} --nixos-report html:$out/report.html --nixos-report json:$out/report.json \
        --nixos-report sarif:$out/report.sarif --junit-xml $out/junit.xml 2>&1 | tee $out/log.txt
      status=''${PIPESTATUS[0]}
      set -e
      echo "$status" > $out/exit-status
      {
        echo "report html $out report.html"
        echo "file json $out/report.json"
        echo "file sarif $out/report.sarif"
        echo "file junit $out/junit.xml"
        echo "file log $out/log.txt"
      } > $out/nix-support/hydra-build-products
      # 1 says that a check failed; every other one that there was no verdict.
      if [ "$status" -gt 1 ] || { [ "$status" = 1 ] && ${lib.boolToString enforce}; }; then exit "$status"; fi
    ''
