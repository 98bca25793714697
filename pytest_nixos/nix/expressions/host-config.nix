# The document of one host: what it declares, what the machine made of it has instead, and the machine's derivation.
#
# request: { host; options = [ [ name ... ] ... ]; skippedFacts; ... } as the plugin sent it.
{
  safe,
  facts,
  machineOf,
  request,
}:
hosts:
let
  host = hosts.${request.host};
  machine = machineOf host;

  # In the order asked.
  options = config: map (safe.option { inherit config; inherit (host) options; }) request.options;

  wanted = all: builtins.removeAttrs all request.skippedFacts;

  # What the host's own VM variant asks for stands there, before the instrumentation has its say.
  ownVm =
    {
      vm = {
        inherit (facts host.config.virtualisation.vmVariant) vm;
      };
      boot-loader = {
        inherit (facts host.config.virtualisation.vmVariantWithBootLoader) vm;
      };
    }
    .${machine.backend} or { };

  declared = wanted (facts host.config // ownVm);
  inMachine = wanted (facts machine.config);

  # Unit files are most of the document, and nearly all are equal on both sides.
  changedUnits =
    let
      ours = declared.units;
      theirs = inMachine.units;
    in
    builtins.listToAttrs (
      builtins.concatMap (
        name:
        if ours ? ${name} && ours.${name} == theirs.${name} then
          [ ]
        else
          [
            {
              inherit name;
              value = theirs.${name};
            }
          ]
      ) (builtins.attrNames theirs)
    );
in
if !(hosts ? ${request.host}) then
  {
    problem = "no-host";
    known = builtins.attrNames hosts;
  }
else if machine ? problem then
  { inherit (machine) problem; }
else
  {
    inherit (machine) backend program;
    snapshot = machine.snapshot or null;
    derivation = safe.text machine.package.drvPath;
    output = safe.text machine.package.outPath;
    toplevel = safe.text machine.toplevel.outPath;
    system = safe.text machine.package.system;
    facts = declared;
    machineFacts =
      inMachine
      // (
        if inMachine ? units then
          {
            units = changedUnits;
            unitNames = builtins.attrNames inMachine.units;
          }
        else
          { }
      );
    options = options host.config;
    machineOptions = options machine.config;
  }
