# The document of one host: what it declares, what the machine made of it has instead, and the machine's derivation.
#
# request: { host; options = [ [ name ... ] ... ]; where = [ { names; members ? false; } ... ]; skippedFacts; refuseImage; ... } as the plugin sent it.
{
  safe,
  facts,
  machineOf,
  cardsOf ? (_: null),
  where ? (_: _: [ ]),
  request,
}:
hosts:
let
  host = hosts.${request.host};
  machine = machineOf host;

  # In the order asked.
  options = config: map (safe.option { inherit config; inherit (host) options; }) request.options;

  # What the host is where it is made into a medium and not into a machine that stays; the modules of nixpkgs declare these options.
  image =
    let
      declares = path: safe.get host ([ "options" ] ++ path) null != null;
    in
    if declares [ "isoImage" ] then
      "an ISO image"
    else if declares [ "netboot" ] then
      "an image to boot from the network"
    else if safe.get host [ "config" "system" "nixos" "variant_id" ] null == "installer" then
      "an installer"
    else if declares [ "proxmox" "qemuConf" ] then
      "a template for Proxmox VMs"
    else
      "";

  # Services that something outside of nixpkgs says something about: the host's own modules, and those of its other inputs. null where the
  # release does not tell where definitions stand.
  ownServices =
    let
      # Its packages may be of another nixpkgs than its modules.
      declaring = safe.get host [ "options" "systemd" "services" "declarations" ] [ ];
      ofModule = file: builtins.match "(.*)/nixos/modules/.*" (toString file);
      found = map ofModule declaring ++ [ [ (toString (safe.get host [ "pkgs" "path" ] "")) ] ];
      roots = builtins.filter (root: root != "") (builtins.concatLists (builtins.filter (root: root != null) found));
      definitions = safe.get host [ "options" "systemd" "services" "definitionsWithLocations" ] null;
      isNixpkgs =
        file:
        builtins.any (root: builtins.substring 0 (builtins.stringLength root + 1) (toString file) == "${root}/") roots;
      namesOf =
        definition:
        if isNixpkgs (definition.file or "") || !(builtins.isAttrs definition.value) then
          [ ]
        else
          builtins.attrNames definition.value;
    in
    if roots == [ ] || definitions == null || builtins.elem "units" request.skippedFacts then
      null
    else
      builtins.attrNames (
        builtins.listToAttrs (
          map (name: {
            inherit name;
            value = null;
          }) (builtins.concatMap namesOf definitions)
        )
      );

  wanted = all: builtins.removeAttrs all request.skippedFacts;

  # What the host asks of its own VM, before the instrumentation has its say.
  ownVm =
    let
      asked = safe.get machine [ "config" "system" "build" "pytestNixosVm" "asked" ] null;
      valueOf = name: safe.get asked [ name "value" ] null;
    in
    if asked == null then
      { }
    else
      {
        inherit (facts {
          virtualisation = {
            memorySize = valueOf "memorySize";
            cores = valueOf "cores";
            graphics = valueOf "graphics";
            restrictNetwork = if asked ? restrictNetwork then valueOf "restrictNetwork" else false;
          };
        }) vm;
      };

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
else if request.refuseImage && image != "" then
  {
    problem = "image";
    kind = image;
  }
else if machine ? problem then
  { inherit (machine) problem; }
else
  {
    inherit image ownServices;
    inherit (machine) backend program;
    withoutBootLoader = machine.withoutBootLoader or false;
    ownDisks = machine.ownDisks or false;
    tpm = machine.backend == "vm" && safe.get machine.config [ "virtualisation" "tpm" "enable" ] false;
    snapshot = machine.snapshot or null;
    network = cardsOf host.config;
    derivation = safe.text machine.package.drvPath;
    output = safe.text machine.package.outPath;
    toplevel = safe.text machine.toplevel.outPath;
    system = safe.text machine.package.system;
    # Of a host that is built on another platform (nixpkgs.buildPlatform), its programs are for its own.
    guestSystem = safe.text (safe.get host [ "pkgs" "stdenv" "hostPlatform" "system" ] machine.package.system);
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
    # Of the host as it is written: nobody reads where the machine made of it got its values.
    where = where (host.options or { }) (request.where or [ ]);
  }
