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
  # auto, vm or container.
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
  # Whether the generations of the suite life are inputs too, some ten evaluations of the host more; without, it is not applicable.
  life ? false,
  # More arguments of pytest.
  arguments ? [ ],
  requiredSystemFeatures ? null,
  # Whether a failed check fails the build.
  enforce ? true,
}:
let
  inherit (pkgs) lib;

  safe = import (expressions + "/safe.nix");
  prepare = import ./prepared.nix { inherit expressions asked; };
  instrumentation = variant: import (expressions + "/instrumentation.nix") (
    {
      inherit channelScript memoryMiB cores;
      restrictNetwork = true;
    }
    // variant
  );
  saving = import (expressions + "/store-image.nix") { inherit safe; wanted = false; };
  testSecrets = import (expressions + "/test-secrets.nix") {
    inherit safe;
    wanted = {
      mode = "test";
      # Files that the user gives for paths that the config names.
      files = builtins.any (argument: lib.hasPrefix "--nixos-secret" (toString argument)) arguments;
    };
  };
  cardsOf = import (expressions + "/cards.nix") {
    inherit safe;
    salt = name;
  };
  # A check judges one host: nothing is a member of a cluster.
  tunnels = import (expressions + "/tunnels.nix") { inherit safe; wanted = null; };
  machineAs =
    backend: delta:
    import (expressions + "/machine.nix") {
      inherit safe backend instrumentation saving testSecrets cardsOf delta tunnels;
      standIn = false;
      declaredDisks = import (expressions + "/declared-disks.nix") {
        inherit safe;
        wanted = false;
      };
      ownDisks = false;
    } host;
  machine = machineAs backend { };

  changedSysctl = safe.get host [ "config" "boot" "kernel" "sysctl" asked.rollbackSysctl ] null;
  changedModule =
    if machine.backend == "vm" && changedSysctl != null then
      ./rollback/changed.nix
    else
      ./rollback/changed-but-sysctl.nix;
  changed = map (file: {
    module = builtins.readFile file;
    toplevel = (machineAs backend (import file)).toplevel;
    inherit (machine) backend;
  }) (lib.optional rollback changedModule ++ generations);

  # The suite life reboots, into a generation of its choice: its VM has a disk and boot loader of its own.
  lifeBackend = if isContainer then "container" else "boot-loader";
  loaderMachine = machineAs lifeBackend { };
  hasFirewall = safe.get host [ "config" "networking" "firewall" "enable" ] false;
  isNeeded =
    { only, ... }:
    only == ""
    || only == "container" && isContainer
    || only == "firewall" && hasFirewall
    || only == "no-firewall" && !hasFirewall;
  lifeGenerations = lib.concatLists (
    lib.zipListsWith (
      known: module:
      lib.optional (isNeeded known) {
        inherit (known) module;
        backend = lifeBackend;
        toplevel = (machineAs lifeBackend module).toplevel;
      }
    ) (builtins.fromJSON (builtins.readFile ./life.json)) (import ./life.nix)
  );

  problems = {
    no-config = "it has no config: give an entry of nixosConfigurations";
    no-extend-modules = "it has no extendModules: make it with nixpkgs.lib.nixosSystem of 22.05 or newer";
    no-vm-variant = "its nixpkgs has no virtualisation.vmVariant: it needs 22.05 or newer";
  };
  isContainer = machine.backend == "container";
  runsNot = "it would run as ${machine.backend}, which no build can: leave backend out, or say vm or container";
  refuse = reason: throw "pytest-nixos: checkHost: ${name}: ${reason}";

  # As for NixOS's own tests. systemd-nspawn needs root, which with uid-range the builder is, of 65536 ids of its own.
  features =
    if requiredSystemFeatures != null then
      requiredSystemFeatures
    else if isContainer then
      [ "uid-range" "nixos-test" ]
    else
      [ "kvm" "nixos-test" ];

  # What starts a container, before what the build has of the same names.
  programs = lib.makeBinPath [ pkgs.systemd pkgs.util-linux pkgs.iproute2 pkgs.e2fsprogs pkgs.nix ];
  container = ''
    export PATH=${programs}:$PATH
    # Nix keeps builders from making setuid files, so that sudo, su and the rest of a host's wrappers would fail, which is not the host's fault.
    touch setuid
    if [ "$(id -u)" != 0 ] || ! chmod u+s setuid; then
      echo "pytest-nixos: ${name} was not judged: a container needs a builder that is root (uid-range) and may make setuid files (nix.conf: filter-syscalls = false)" >&2
      exit 1
    fi
    # As nixpkgs' own test driver does for its containers: what the sandbox lacks and systemd-nspawn looks for.
    if [ ! -e /etc/os-release ]; then touch /etc/os-release; fi
    if [ ! -w /run ]; then mkdir -p /run && mount -t tmpfs none /run; fi
    if ! grep -q ' /sys/fs/cgroup' /proc/mounts; then mkdir -p /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup; fi
  '';

  prepared = prepare {
    inherit
      pkgs
      name
      host
      flake
      options
      ;
    machines = [ machine ] ++ lib.optional (life && !isContainer) loaderMachine;
    generations = changed ++ lib.optionals life lifeGenerations;
  };

  # The option passthru has no default, and what has none throws.
  asksFor = safe.get host [ "config" "passthru" "pytest-nixos" "profiles" ] [ ];
  judgedBy = if profiles == null then asksFor else profiles;

  command = lib.escapeShellArgs (
    import ./pytest-arguments.nix { inherit lib refuse; } {
      inherit
        pytest-nixos
        suites
        tests
        waivers
        failOn
        ;
      inherit (prepared) directory;
      profiles = judgedBy;
      # The build sandbox keeps the run script and QEMU, or the container's root, apart already, and lets nobody make another one.
      arguments = [
        "--nixos-snapshot"
        "off"
        (if isContainer then "--nixos-container-root-is-machine-root" else "--nixos-run-script-has-my-rights")
      ]
      ++ arguments;
    }
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
      passthru = {
        inherit machine;
        inherit (prepared) document;
        prepared = prepared.directory;
      };
      # What the derivation needs beside the text of its command.
      inherit (prepared) closure inputs;
      meta.description = "What pytest-nixos says of the host ${name}";
    }
    ''
      ${lib.optionalString (!isContainer && machine.backend != "vm") (refuse runsNot)}
      mkdir -p $out/nix-support home
      export HOME=$PWD/home XDG_CACHE_HOME=$PWD/cache XDG_STATE_HOME=$PWD/state XDG_RUNTIME_DIR=$PWD/run
      mkdir -p -m 700 "$XDG_RUNTIME_DIR"
      ${lib.optionalString isContainer container}
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
