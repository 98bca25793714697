# One host as a machine: { config; package; toplevel; program; backend; }, or { problem; } where it cannot be one.
#
# backend: auto, vm, boot-loader (a VM with a disk and boot loader of its own), container, or ssh (a host that runs already).
# instrumentation: from { storeImage } to the module for a VM.  delta: module for either, {} for none.
# saving: what store-image.nix says about the host's VM.
# testSecrets: what test-secrets.nix makes of a host.
{
  safe,
  backend,
  instrumentation,
  delta,
  saving,
  testSecrets,
}:
host:
let
  image = saving host;

  declaredContainer = safe.get host.config [ "boot" "isContainer" ] false;

  chosen =
    if backend == "auto" then (if declaredContainer then "container" else "vm") else backend;

  asVm =
    variant: storeImage:
    host.extendModules {
      modules = [
        {
          _file = "pytest-nixos";
          virtualisation.${variant}.imports = [
            (instrumentation { inherit storeImage; })
            (testSecrets {
              inherit host;
              container = false;
            })
            delta
          ];
        }
      ];
    };

  # Of a host extended by asVm.
  vm = config: package: rec {
    backend = chosen;
    inherit config package;
    toplevel = config.system.build.toplevel;
    program = "bin/${package.meta.mainProgram or "run-${config.system.name}-vm"}";
  };

  # A live host runs what it declares, without anything of ours.
  asLive = host.extendModules { modules = [ delta ]; };

  asContainer = host.extendModules {
    modules = [
      (
        { lib, options, ... }:
        {
          _file = "pytest-nixos";
          boot = {
            isContainer = lib.mkForce true;
          }
          # Since 25.11 what suits systemd-nspawn alone (its mounts, its console) has an option of its own.
          // lib.optionalAttrs (options.boot ? isNspawnContainer) { isNspawnContainer = lib.mkForce true; };
        }
      )
      (testSecrets {
        inherit host;
        container = true;
      })
      delta
    ];
  };
in
if !(builtins.isAttrs host && host ? config) then
  { problem = "no-config"; }
else if !(host ? extendModules) then
  { problem = "no-extend-modules"; }
else if chosen == "ssh" then
  {
    backend = chosen;
    inherit (asLive) config;
    package = asLive.config.system.build.toplevel;
    toplevel = asLive.config.system.build.toplevel;
    program = "";
  }
else if chosen == "container" then
  {
    backend = chosen;
    inherit (asContainer) config;
    package = asContainer.config.system.build.toplevel;
    toplevel = asContainer.config.system.build.toplevel;
    program = "";
  }
else if !(host.options ? virtualisation.vmVariant) then
  { problem = "no-vm-variant"; }
else if chosen == "boot-loader" then
  let
    config = (asVm "vmVariantWithBootLoader" false).config;
  in
  vm config.virtualisation.vmVariantWithBootLoader config.system.build.vmWithBootLoader
  // {
    snapshot = {
      refusal = "it starts by a boot loader";
      changed = { };
    };
  }
else
  let
    config = (asVm "vmVariant" image.storeImage).config;
    machine = vm config.virtualisation.vmVariant config.system.build.vm;
  in
  machine
  // {
    withoutBootLoader = !(safe.get machine.config [ "virtualisation" "useBootLoader" ] false);
    snapshot = {
      inherit (image) refusal;
      changed = if image.storeImage then image.changed machine.config else { };
    };
  }
