# One host as a machine: { config; package; toplevel; program; backend; }, or { problem; } where it cannot be one.
#
# backend: auto, vm, container, or live (a host that runs already).
# instrumentation: module for a VM.  delta: module for either, {} for none.
{
  safe,
  backend,
  instrumentation,
  delta,
}:
host:
let
  declaredContainer = safe.get host.config [ "boot" "isContainer" ] false;

  chosen =
    if backend == "auto" then (if declaredContainer then "container" else "vm") else backend;

  asVm = host.extendModules {
    modules = [
      {
        _file = "pytest-nixos";
        virtualisation.vmVariant.imports = [
          instrumentation
          delta
        ];
      }
    ];
  };

  # A live host runs what it declares, without anything of ours.
  asLive = host.extendModules { modules = [ delta ]; };

  asContainer = host.extendModules {
    modules = [
      (
        { lib, ... }:
        {
          _file = "pytest-nixos";
          boot.isContainer = lib.mkForce true;
        }
      )
      delta
    ];
  };

  vmPackage = asVm.config.system.build.vm;
in
if !(builtins.isAttrs host && host ? config) then
  { problem = "no-config"; }
else if !(host ? extendModules) then
  { problem = "no-extend-modules"; }
else if chosen == "live" then
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
else
  rec {
    backend = chosen;
    config = asVm.config.virtualisation.vmVariant;
    package = vmPackage;
    toplevel = config.system.build.toplevel;
    program = "bin/${vmPackage.meta.mainProgram or "run-${config.system.name}-vm"}";
  }
