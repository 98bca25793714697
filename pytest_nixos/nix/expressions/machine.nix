# One host as a machine: { config; package; toplevel; program; backend; }, or { problem; } where it cannot be one.
#
# backend: auto, vm, boot-loader (a VM with a disk and boot loader of its own), member (a VM whose network cards are the host's own and
# whose networks the plugin makes), container, or ssh (a host that runs already).
# instrumentation: from { storeImage; saved; cards; isMember; timesyncd; } to the module for a VM.  standIn: whether a stand-in for the internet answers.
# delta: module for either, {} for none.
# saving: what store-image.nix says about VMs.  cardsOf: what cards.nix makes of the host's config.
# testSecrets: what test-secrets.nix makes of a host, a list of modules.
# tunnels: its `modules` give a member of a cluster test keys for WireGuard.
# declaredDisks: what declared-disks.nix makes of a host; ownDisks: whether it was asked for.
{
  safe,
  backend,
  instrumentation,
  standIn,
  delta,
  saving,
  testSecrets,
  cardsOf,
  declaredDisks,
  ownDisks,
  tunnels,
}:
host:
let
  declaredContainer = safe.get host.config [ "boot" "isContainer" ] false;

  # Nothing that a VM could start, as on a system for WSL, which has the kernel of Windows.
  withoutKernel =
    safe.get host.config [ "boot" "kernel" "enable" ] true == false
    || safe.get host.config [ "boot" "initrd" "enable" ] true == false;

  chosen =
    if backend == "auto" then (if declaredContainer || withoutKernel then "container" else "vm") else backend;

  # A set of packages of its own is a quarter of what an evaluation takes, so the machine has the host's: where nothing but the VM's own
  # settings and ours makes the two differ, and both define what packages are made of in the same places.
  #
  # Functions cannot be compared: where a definition stands, and how many overlays or which settings it has, tells whether it is the
  # same one. What a host does not use of these options throws where it is read, on both sides.
  definers =
    options: path:
    let
      shapeOf =
        value:
        if builtins.isList value then
          builtins.length value
        else if path != [ "nixpkgs" "pkgs" ] && builtins.isAttrs value then
          builtins.attrNames value
        else if builtins.isString value then
          value
        else
          builtins.typeOf value;
      shapes = map (definition: [
        (toString definition.file)
        (shapeOf definition.value)
      ]) (safe.get options (path ++ [ "definitionsWithLocations" ]) [ ]);
    in
    builtins.tryEval (builtins.deepSeq shapes shapes);

  sameDefinitions = options: path: definers options path == definers host.options path;

  samePackages =
    options:
    builtins.all (name: sameDefinitions options [ "nixpkgs" name ]) [
      "buildPlatform"
      "config"
      "crossSystem"
      "hostPlatform"
      "localSystem"
      "overlays"
      "pkgs"
      "system"
    ];

  hostsPackages =
    { lib, options, ... }:
    {
      _file = "pytest-nixos";
      # Stronger than what a host forces, which its packages come from already.
      _module.args.pkgs = lib.mkIf (samePackages options) (lib.mkOverride 1 host.pkgs);
    };

  # Each home of home-manager, and each nested container, is a configuration of its own, often with a set of packages of its own, and
  # of the size of a host's. The machine has the host's, as they are declared, where both define them in the same places.
  configurationsInside = builtins.filter (
    path:
    let
      option = safe.get host.options path null;
    in
    option != null && option ? definitionsWithLocations && !(option ? apply)
  ) [
    [ "home-manager" "users" ]
    [ "containers" ]
  ];

  hostsConfigurationsInside =
    { lib, options, ... }:
    {
      _file = "pytest-nixos";
      options = lib.foldl' lib.recursiveUpdate { } (
        map (
          path:
          lib.setAttrByPath path (
            lib.mkOption {
              apply = own: if samePackages options && sameDefinitions options path then lib.getAttrFromPath path host.config else own;
            }
          )
        ) configurationsInside
      );
    };

  # Modules of a VM variant may decide by anything what packages are.
  isSettingsOnly =
    definition:
    builtins.isAttrs definition.value && builtins.attrNames (removeAttrs definition.value [ "virtualisation" ]) == [ ];

  sharedWithHost =
    definitions:
    if host ? pkgs && delta == { } && definitions != null && builtins.all isSettingsOnly definitions then
      [
        hostsPackages
        hostsConfigurationsInside
      ]
    else
      [ ];

  declaredCards = (cardsOf host.config).cards;

  # The cards of a VM on its own: none where the run script's one is as good, or where the host says what networks its VM has.
  ownCards =
    definitions:
    let
      leavesNetworks =
        { value, ... }:
        builtins.isAttrs value
        && !(builtins.any (name: value ? ${name}) [ "_type" "imports" "config" "networking" "systemd" ])
        && !(builtins.any (path: safe.get value path null != null) [
          [ "virtualisation" "vlans" ]
          [ "virtualisation" "interfaces" ]
          [ "virtualisation" "forwardPorts" ]
          [ "virtualisation" "qemu" "networkingOptions" ]
        ]);
      isOrdinary = card: !card.isMatched && builtins.elem card.name [ "" "eth0" ];
      isOne = builtins.length declaredCards == 1;
    in
    if
      definitions == null
      || host.options ? virtualisation.qemu.networkingOptions
      || !(builtins.all leavesNetworks definitions)
      || (isOne && builtins.all isOrdinary declaredCards)
      || builtins.length declaredCards > mostCards
    then
      [ ]
    else
      declaredCards;

  # A board of QEMU's has room for so many cards beside the VM's disks.
  mostCards = 8;

  # What the option of a VM variant would be with our modules among its definitions, and the package that starts it.
  #
  # A host that is extended by them comes to the same, with all of its modules and options made once more on the way: a tenth of
  # what an evaluation takes. That is done where a host makes its package by itself, of its variant, or the release does not tell
  # definitions.
  asVm =
    variant: package: storeImage:
    let
      option = host.options.virtualisation.${variant};
      isMember = chosen == "member";
      ours = {
        imports = [
          (instrumentation {
            inherit storeImage isMember;
            guestAgent = safe.get host.config [ "services" "qemuGuest" "enable" ] false;
            saved = saving.wanted;
            cards = if isMember then declaredCards else ownCards (option.definitionsWithLocations or null);
            timesyncd = if standIn && !isMember then safe.get host.config [ "services" "timesyncd" "enable" ] null else null;
          })
        ]
        ++ testSecrets {
          inherit host;
          container = false;
        }
        ++ tunnels.modules
        ++ deltas
        ++ (if variant == "vmVariant" then [ (declaredDisks host) ] else [ ])
        ++ sharedWithHost (option.definitionsWithLocations or null);
      };
      extended =
        (host.extendModules {
          modules = [
            {
              _file = "pytest-nixos";
              virtualisation.${variant} = ours;
            }
          ];
        }).config;
      merged = option.type.merge option.loc (
        option.definitionsWithLocations
        ++ [
          {
            file = "pytest-nixos";
            value = ours;
          }
        ]
      );
      # A host that imports nixpkgs' qemu-vm.nix is a VM as it is written, and its variant one with our modules.
      makesItsOwn =
        builtins.length (
          builtins.filter (
            definition: definition.value ? ${package} && builtins.match ".*/virtualisation/qemu-vm[.]nix" (toString definition.file) == null
          ) host.options.system.build.definitionsWithLocations
        ) != 1;
    in
    if option ? definitionsWithLocations && option ? type.merge && !makesItsOwn then
      vm merged merged.system.build.vm
    else
      vm extended.virtualisation.${variant} extended.system.build.${package};

  vm = config: package: rec {
    backend = if chosen == "member" then "vm" else chosen;
    inherit config package;
    toplevel = config.system.build.toplevel;
    program = "bin/${package.meta.mainProgram or "run-${config.system.name}-vm"}";
  };

  deltas = if delta == { } then [ ] else [ delta ];

  # What nothing is added to is the host itself: to extend it would evaluate all of it once more.
  # A live host runs what it declares, without anything of ours.
  asLive = if deltas == [ ] then host else host.extendModules { modules = deltas; };

  # Since 25.11 what suits systemd-nspawn alone (its mounts, its console) has an option of its own.
  isNspawn = declaredContainer && safe.get host.config [ "boot" "isNspawnContainer" ] true;
  asContainer =
    let
      added =
        testSecrets {
          inherit host;
          container = true;
        }
        ++ tunnels.modules
        ++ deltas;
    in
    if isNspawn && added == [ ] then
      host
    else
      host.extendModules {
        modules = [
          (
            { lib, options, ... }:
            {
              _file = "pytest-nixos";
              boot = {
                isContainer = lib.mkForce true;
              }
              // lib.optionalAttrs (options.boot ? isNspawnContainer) { isNspawnContainer = lib.mkForce true; };
            }
          )
        ]
        ++ added
        ++ sharedWithHost [ ];
      };
in
if builtins.isAttrs host && host ? problem then
  { inherit (host) problem; }
else if !(builtins.isAttrs host && host ? config) then
  { problem = "no-config"; }
else if host ? asMachine then
  if builtins.elem backend [ "auto" "vm" ] && delta == { } then host.asMachine else { problem = "test-node"; }
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
else if withoutKernel && !declaredContainer then
  { problem = "no-kernel"; }
else if !(host.options ? virtualisation.vmVariant) then
  { problem = "no-vm-variant"; }
else if chosen == "boot-loader" then
  asVm "vmVariantWithBootLoader" "vmWithBootLoader" false
  // {
    snapshot = {
      refusal = "it starts by a boot loader";
      changed = { };
    };
  }
else
  let
    # What keeps a VM from having its store as an image is seen on one that has it: nearly always there is nothing, and what the host
    # asks of its own VM need not be evaluated by itself.
    made = asVm "vmVariant" "vm";
    withImage = made true;
    image = saving.of withImage.config;
    machine = if image.isFit then withImage else made false;
    byBootLoader = safe.get machine.config [ "virtualisation" "useBootLoader" ] false;
  in
  # Its root would be the image that nixpkgs makes, with a root file system of its own.
  if ownDisks && byBootLoader then
    { problem = "image-and-own-disks"; }
  else
    machine
    // {
      inherit ownDisks;
      withoutBootLoader = !byBootLoader;
      snapshot = { inherit (image) refusal changed; };
    }
