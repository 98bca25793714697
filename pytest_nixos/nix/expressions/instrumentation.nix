# What a VM gets beside the host's own config: a root command channel, and the run script's own settings.
#
# channelScript: bash program that serves the channel.
# memoryMiB, cores: null leaves what the host declares.
# restrictNetwork: guest networking reaches the machine that runs it only.
# timesyncd: whether the host asks the internet for the time, where a stand-in for that answers; null leaves what the VM has.
# cards: the network cards that it gets, see cards.nix; none for the one of the run script.
# guestAgent: whether the host itself has QEMU's agent.
# isMember: whether it is a machine of a cluster, whose networks are the plugin's; each card of others is on a user network of QEMU.
# storeImage: the store may come as an image, with nothing shared with the host machine, so that QEMU can save the VM.
# saved: whether it shall be one that can be saved; without, the store is an image only where shares would come over virtiofs.
{
  channelScript,
  memoryMiB,
  cores,
  restrictNetwork,
  timesyncd,
  storeImage,
  saved,
  cards,
  isMember,
  guestAgent,
}:
{
  config,
  lib,
  pkgs,
  options,
  ...
}:
let
  isCross = pkgs.stdenv.buildPlatform.system != pkgs.stdenv.hostPlatform.system;

  knows = path: lib.hasAttrByPath path options;

  # systemd in stage 1 may mount a share before its driver is there, where nothing else waits for a disk or udev is slow, and ends in
  # emergency mode (nixpkgs 240175). Up to 24.05 the initrd has no modprobe@.service, by which later releases wait for it.
  sharesBySystemd =
    (config.boot.initrd.systemd.enable or false) && !asImage && !(declares [ "qemu" "enableSharedMemory" ]);
  pointOf =
    tag: share: if tag == "nix-store" && config.virtualisation.writableStore then "/nix/.ro-store" else share.target;

  # The run script's own card is the first one; QEMU gives it an address of its own unless told another.
  withAddress = builtins.replaceStrings [ "-net nic,netdev=user.0," ] [ "-net nic,netdev=user.0,macaddr=${(builtins.head cards).hardware}," ];
  userNetworks = lib.concatLists (
    lib.imap1 (
      number: card:
      let
        own = toString number;
        restricted = lib.optionalString restrictNetwork ",restrict=on";
      in
      [
        "-netdev user,id=user.${own},net=10.0.${toString (number + 2)}.0/24,ipv6-net=fec0:0:0:${own}::/64${restricted}"
        "-device virtio-net-pci,netdev=user.${own},mac=${card.hardware}"
      ]
    ) (builtins.tail cards)
  );

  # Whether nixpkgs declares an option of a VM. Those of `replaced` are declared here too, without a default.
  declares = path: (lib.attrByPath path { } options.virtualisation) ? default;

  # Where nixpkgs shares directories over virtiofs, a run without snapshots has its store as an image too: virtiofsd is one more
  # process with rights of its own, and nothing that the plugin needs comes over a share. A host that declares shares keeps it.
  asImage = storeImage && declares [ "useNixStoreImage" ] && (saved || declares [ "qemu" "enableSharedMemory" ]);

  # What the machine has in place of what its host asks of its VM: from one to the other, by path.
  #
  # Each is an `apply` and no stronger definition: that would hide the host's, and what the host asks could then be told only by one
  # more evaluation of all its modules.
  replaced = [
    {
      path = [ "graphics" ];
      has = _: false;
    }
    {
      path = [ "restrictNetwork" ];
      has = _: restrictNetwork;
    }
    {
      path = [ "memorySize" ];
      has = value: if memoryMiB != null then memoryMiB else value;
    }
    {
      path = [ "cores" ];
      has = value: if cores != null then cores else value;
    }
    {
      path = [ "useNixStoreImage" ];
      has = value: asImage || value;
    }
    # Up to 24.05 a writable store makes the image a derivation that is built in a VM of its own; the plugin puts
    # an overlay over the store of the running guest instead.
    {
      path = [ "writableStore" ];
      has = value: !asImage && value;
    }
    {
      path = [ "mountHostNixStore" ];
      has = value: !asImage && value;
    }
    {
      path = [ "sharedDirectories" ];
      has = value: if asImage then { } else value;
    }
    # Shares come over virtiofs there, which needs shared guest memory. Where nothing is shared, that memory would only keep
    # QEMU from saving the VM.
    {
      path = [ "qemu" "enableSharedMemory" ];
      has = _: !asImage;
    }
  ];
  declaration =
    { path, has }:
    lib.setAttrByPath path (lib.mkOption { apply = value: if declares path then has value else value; });

  # What the host asks, as the option's own type merges it: { value; priority; }.
  asked =
    path:
    let
      option = lib.getAttrFromPath path options.virtualisation;
      definitions = lib.zipListsWith (file: value: { inherit file value; }) option.files option.definitions;
    in
    {
      value = option.type.merge option.loc definitions;
      priority = option.highestPrio;
    };
in
{
  _file = "pytest-nixos instrumentation";

  options.virtualisation = lib.foldl' lib.recursiveUpdate { } (
    map declaration replaced
    ++ lib.optional (!isMember && cards != [ ]) { qemu.networkingOptions = lib.mkOption { apply = map withAddress; }; }
  );

  config = {
    systemd.services.pytest-nixos-channel = {
      description = "Root command channel of pytest-nixos";

      # As early as possible, and in emergency and rescue mode too: a boot that goes wrong must be open to questions.
      wantedBy = [
        "sysinit.target"
        "emergency.target"
        "rescue.target"
      ];
      conflicts = [ "shutdown.target" ];
      before = [ "shutdown.target" ];

      # A switch to another generation runs through this channel, so it must not cut it.
      restartIfChanged = false;
      stopIfChanged = false;
      unitConfig = {
        DefaultDependencies = false;
        IgnoreOnIsolate = true;
        StartLimitIntervalSec = 0;
        X-StopOnReconfiguration = false;
        X-StopOnRemoval = false;
      };

      path = [ pkgs.coreutils ];
      serviceConfig = {
        ExecStart = "${pkgs.bash}/bin/bash ${pkgs.writeText "pytest-nixos-channel.bash" channelScript}";
        Type = "simple";
        Restart = "always";
        RestartSec = "200ms";
        KillMode = "control-group";
        TimeoutStopSec = "5s";
        Slice = "-.slice";
        TasksMax = "infinity";
        LimitNOFILE = "65536:524288";
        # The channel outlives tests that exhaust memory; the script gives commands the normal score back.
        OOMScoreAdjust = -1000;
        OOMPolicy = "continue";
        IgnoreSIGPIPE = false;
      };
    };

    # A VM that boots its kernel directly has no boot loader, and its disk no room for one: `switch` would fail at
    # installing it, before it activates anything.
    system.build.installBootLoader = lib.mkIf (!config.virtualisation.useBootLoader) (
      lib.mkForce "${pkgs.coreutils}/bin/true"
    );

    # Without one, secrets of the initrd have to be files of the flake, and nixpkgs asserts that they are. Those that only the real host has are
    # left out of the VM's initrd.
    boot.loader = lib.optionalAttrs (knows [ "boot" "loader" "supportsInitrdSecrets" ]) {
      supportsInitrdSecrets = lib.mkIf (
        !config.virtualisation.useBootLoader
        && builtins.any (source: !(builtins.isPath source || lib.hasPrefix builtins.storeDir (toString source))) (
          builtins.attrValues config.boot.initrd.secrets
        )
      ) (lib.mkOverride 5 true);
    };

    boot.initrd.kernelModules = lib.mkIf sharesBySystemd [
      "virtio_pci"
      "9pnet_virtio"
      "9p"
    ];

    # What the plugin puts on the kernel's command line itself where it starts the kernel. An emulated guest on a busy machine
    # would take its timer for broken and panic, and systemd would give up after 90 s on the disk with the boot loader, which is
    # there and which udev has not come to yet. How slow the machine is nobody knows here; every device of such a VM comes.
    boot.kernelParams = lib.mkIf config.virtualisation.useBootLoader [
      "no_timer_check"
      "systemd.default_device_timeout_sec=600"
      "systemd.default_timeout_start_sec=180"
    ];

    # The manual of all options is a twelfth of an evaluation. nixpkgs leaves it out of its own containers and test machines too; what
    # anybody says of it stays, and one that describes the host's own modules, since these can break it.
    documentation = lib.optionalAttrs (knows [ "documentation" "nixos" "enable" ]) {
      nixos.enable = lib.mkIf (config.documentation.enable && !(config.documentation.nixos.includeAllModules or false)) (
        lib.mkOverride 1400 false
      );
    };

    # nixpkgs' VM has the clock of the machine that runs it, and asks nobody.
    services = lib.optionalAttrs (timesyncd != null) {
      timesyncd.enable = lib.mkOverride 5 timesyncd;
    };

    # A card is called as the host calls it: udev knows it by its hardware address, in stage 1 too. What the host's own .link file says of
    # a card that it finds by slot or driver stays.
    systemd.network = lib.optionalAttrs (cards != [ ] && knows [ "systemd" "network" "links" ]) {
      links = builtins.listToAttrs (
        map (card: {
          name = "00-pytest-nixos-${card.name}";
          value = {
            matchConfig.PermanentMACAddress = card.hardware;
            linkConfig = card.link // {
              Name = card.name;
            };
          };
        }) (builtins.filter (card: card.name != "") cards)
      );
    };

    # What nixpkgs would compile for the guest of a host that is built on another platform (nixpkgs.buildPlatform): the run script and QEMU, which
    # can be run where they are built, and QEMU once more for its agent in the guest.
    virtualisation =
      lib.optionalAttrs (declares [ "host" "pkgs" ]) {
        host.pkgs = lib.mkIf isCross (lib.mkOverride 1400 pkgs.pkgsBuildBuild);
      }
      // lib.optionalAttrs (knows [ "virtualisation" "fileSystems" ]) {
        fileSystems = lib.mkIf sharesBySystemd (
          lib.mapAttrs' (
            tag: share: lib.nameValuePair (pointOf tag share) { options = [ "x-systemd.after=systemd-modules-load.service" ]; }
          ) config.virtualisation.sharedDirectories
        );
      }
      // {
        qemu =
          lib.optionalAttrs (declares [ "qemu" "guestAgent" "enable" ]) {
            guestAgent.enable = lib.mkIf isCross (lib.mkOverride 1400 guestAgent);
          }
          # A member's cards come on QEMU's command line, with the networks of the plugin.
          // lib.optionalAttrs (isMember || cards != [ ]) {
            networkingOptions = if isMember then lib.mkForce [ ] else lib.mkAfter userNetworks;
          };
      };

    # For machine.nix, which has the config alone.
    system.build.pytestNixosVm = {
      inherit asImage;
      asked = lib.foldl' lib.recursiveUpdate { } (
        map ({ path, ... }: lib.setAttrByPath path (asked path)) (builtins.filter ({ path, ... }: declares path) replaced)
      );
    };
  };
}
