# What a VM gets beside the host's own config: a root command channel, and the run script's own settings.
#
# channelScript: bash program that serves the channel.
# memoryMiB, cores: null leaves what the host declares.
# restrictNetwork: guest networking reaches the machine that runs it only.
# timesyncd: whether the host asks the internet for the time, where a stand-in for that answers; null leaves what the VM has.
# cards: the network cards that it gets, see cards.nix; none for the one of the run script.
# isMember: whether it is a machine of a cluster, whose networks are the plugin's; each card of others is on a user network of QEMU.
# storeImage: the store comes as an image and nothing is shared with the host machine, so that QEMU can save the VM.
{
  channelScript,
  memoryMiB,
  cores,
  restrictNetwork,
  timesyncd,
  storeImage,
  cards,
  isMember,
}:
{
  config,
  lib,
  pkgs,
  options,
  ...
}:
let
  knows = path: lib.hasAttrByPath path options;

  # systemd in stage 1 may mount a share before its driver is there, where nothing else waits for a disk or udev is slow, and ends in
  # emergency mode (nixpkgs 240175). Up to 24.05 the initrd has no modprobe@.service, by which later releases wait for it.
  sharesBySystemd =
    (config.boot.initrd.systemd.enable or false) && !storeImage && !(knows [ "virtualisation" "qemu" "enableSharedMemory" ]);
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
in
{
  _file = "pytest-nixos instrumentation";

  options = lib.optionalAttrs (!isMember && cards != [ ]) {
    virtualisation.qemu.networkingOptions = lib.mkOption { apply = map withAddress; };
  };

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

    virtualisation = {
      graphics = lib.mkForce false;
    }
    // lib.optionalAttrs (memoryMiB != null) { memorySize = lib.mkForce memoryMiB; }
    // lib.optionalAttrs (cores != null) { cores = lib.mkForce cores; }
    // lib.optionalAttrs (knows [ "virtualisation" "restrictNetwork" ]) {
      restrictNetwork = lib.mkForce restrictNetwork;
    }
    // lib.optionalAttrs (knows [ "virtualisation" "fileSystems" ]) {
      fileSystems = lib.mkIf sharesBySystemd (
        lib.mapAttrs' (
          tag: share: lib.nameValuePair (pointOf tag share) { options = [ "x-systemd.after=systemd-modules-load.service" ]; }
        ) config.virtualisation.sharedDirectories
      );
    }
    // lib.optionalAttrs storeImage {
      useNixStoreImage = lib.mkForce true;
      # Up to 24.05 a writable store makes the image a derivation that is built in a VM of its own; the plugin puts
      # an overlay over the store of the running guest instead.
      writableStore = lib.mkForce false;
      sharedDirectories = lib.mkForce { };
    }
    // lib.optionalAttrs (storeImage && knows [ "virtualisation" "mountHostNixStore" ]) {
      mountHostNixStore = lib.mkForce false;
    }
    // {
      qemu =
        # A member's cards come on QEMU's command line, with the networks of the plugin.
        lib.optionalAttrs (isMember || cards != [ ]) { networkingOptions = if isMember then lib.mkForce [ ] else lib.mkAfter userNetworks; }
        # Shares come over virtiofs there, which needs shared guest memory. Where nothing is shared, that memory would only keep
        # QEMU from saving the VM.
        // lib.optionalAttrs (knows [ "virtualisation" "qemu" "enableSharedMemory" ]) {
          enableSharedMemory = lib.mkForce (!storeImage);
        };
    };
  };
}
