# The facts of one evaluated NixOS config, each as { readable; value; } so that one that throws hides no other.
#
# paths: name of the fact to its option path, as nix/config/host_facts.py declares them. A fact that is plain JSON needs no reader here.
#
# Attributes of a value are named as the options are, so that a difference can be told by its option path. Written with builtins alone,
# against options of nixpkgs 22.05 to 26.05; an option that a release lacks is null.
#
# tunnelsOf: what tunnels.nix reads of a config.
{ safe, paths, tunnelsOf }:
config:
let
  inherit (safe) fact get text;

  at = path: get config path;

  # The value of a fact, or `default` where it is absent or throws.
  valueOf = name: at paths.${name};

  # A string, path or package as text; null stays null.
  optionalText =
    value:
    if value == null then
      null
    else if builtins.isAttrs value && value ? shellPath then
      text "/run/current-system/sw${value.shellPath}"
    else
      text (toString value);

  texts = map (value: text (toString value));

  mapNamed =
    f: set:
    builtins.mapAttrs (name: value: fact (f name value)) set;

  ports = set: {
    allowedTCPPorts = set.allowedTCPPorts or [ ];
    allowedTCPPortRanges = set.allowedTCPPortRanges or [ ];
    allowedUDPPorts = set.allowedUDPPorts or [ ];
    allowedUDPPortRanges = set.allowedUDPPortRanges or [ ];
  };

  firewall = valueOf "firewall" { };
  nftables = at [ "networking" "nftables" "enable" ] false;

  # `toString true` is "1", but `toString false` is "": what the kernel prints is 0.
  sysctl =
    value:
    if value == null then
      null
    else if value == false then
      "0"
    else
      text (toString value);

  zram = valueOf "zram" { enable = false; };
  ollama = valueOf "ollama" { enable = false; };

  # An option that was removed still exists and throws when it is read.
  ollamaOption = name: default: get ollama [ name ] default;

  acceleration = ollamaOption "acceleration" null;

  user = name: value: {
    name = text (toString (value.name or name));
    # Since 25.05; one that is not enabled has no account.
    enabled = value.enable or true;
    uid = value.uid or null;
    isNormalUser = value.isNormalUser or false;
    isSystemUser = value.isSystemUser or false;
    group = value.group or "";
    extraGroups = value.extraGroups or [ ];
    home = text (toString (value.home or ""));
    shell = optionalText (value.shell or null);
    # Since 24.11 a host may leave lingering to whoever logs in.
    linger = (value.linger or null) == true && at [ "users" "manageLingering" ] true;
    authorizedKeys =
      builtins.length (get value [ "openssh" "authorizedKeys" "keys" ] [ ])
      + builtins.length (get value [ "openssh" "authorizedKeys" "keyFiles" ] [ ]);
  };

  fileSystem = name: value: {
    mountPoint = value.mountPoint or name;
    device = optionalText (value.device or null);
    fsType = value.fsType or "auto";
    options = texts (value.options or [ ]);
  };

  unit = name: value: {
    enabled = value.enable or true;
    # `text` is the finished unit file; a release without it would have no unit files at all.
    # That of a unit which is turned off may throw (an option that it needs is not set), and systemd never reads it.
    text = if !(value.enable or true) || (value.text or null) == null then "" else text value.text;
    wantedBy = (value.wantedBy or [ ]) ++ (value.requiredBy or [ ]);
    dropIn = (value.overrideStrategy or "") == "asDropin";
  };

  # One attribute of a value as text, "" where it is absent, null or throws.
  attributeText =
    set: name:
    let
      found = fact (if (set.${name} or null) == null then "" else text (toString set.${name}));
    in
    if found.readable then found.value else "";
  attributeTexts = names: set: builtins.listToAttrs (map (name: { inherit name; value = attributeText set name; }) names);
  named = f: path: builtins.attrValues (builtins.mapAttrs f (at path { }));

  sopsSecret = name: value: attributeTexts [ "key" "format" "path" "owner" "uid" "group" "gid" "mode" "sopsFile" ] value // {
    inherit name;
    neededForUsers = get value [ "neededForUsers" ] false;
    restartUnits = get value [ "restartUnits" ] [ ];
  };
  ageSecret = name: value: attributeTexts [ "path" "owner" "group" "mode" "file" ] value // {
    inherit name;
    symlink = get value [ "symlink" ] true;
  };
  template = name: value: attributeTexts [ "path" "owner" "uid" "group" "gid" "mode" ] value // { inherit name; };

  tunnels = tunnelsOf config;

  # Which file an option names, and what has to be in it.
  use = option: kind: path: { inherit option kind path; };
  ofWireguard =
    option: interfaces:
    builtins.concatLists (
      builtins.attrValues (
        builtins.mapAttrs (
          name: value:
          [ (use "${option}.${name}.privateKeyFile" "wireguard-key" (attributeText value "privateKeyFile")) ]
          ++ map (
            peer: use "${option}.${name}.peers.*.presharedKeyFile" "wireguard-preshared-key" (attributeText peer "presharedKeyFile")
          ) (get value [ "peers" ] [ ])
        ) interfaces
      )
    );
  secretUses =
    named (
      name: value: use "users.users.${name}.hashedPasswordFile" "password-hash" (attributeText value "hashedPasswordFile")
    ) [ "users" "users" ]
    ++ named (name: value: use "users.users.${name}.passwordFile" "password-hash" (attributeText value "passwordFile")) [
      "users"
      "users"
    ]
    ++ ofWireguard "networking.wireguard.interfaces" (at [ "networking" "wireguard" "interfaces" ] { })
    ++ ofWireguard "networking.wg-quick.interfaces" (at [ "networking" "wg-quick" "interfaces" ] { })
    ++ builtins.concatMap (
      tunnel:
      [ (use "systemd.network.netdevs (${tunnel.name})" "wireguard-key" tunnel.keyFile) ]
      ++ map (peer: use "systemd.network.netdevs (${tunnel.name})" "wireguard-preshared-key" peer.presharedFile) tunnel.peers
    ) (builtins.filter (tunnel: tunnel.tree == "systemd.network.netdevs") tunnels)
    ++ builtins.concatMap (key: [
      (use "services.openssh.hostKeys" (if attributeText key "type" == "rsa" then "ssh-rsa-key" else "ssh-key") (
        attributeText key "path"
      ))
    ]) (if at [ "services" "openssh" "enable" ] false then at [ "services" "openssh" "hostKeys" ] [ ] else [ ])
    ++ builtins.concatLists (
      named (name: value: [
        (use "services.nginx.virtualHosts.${name}.sslCertificate" "certificate" (attributeText value "sslCertificate"))
        (use "services.nginx.virtualHosts.${name}.sslCertificateKey" "certificate-key" (
          attributeText value "sslCertificateKey"
        ))
      ]) [ "services" "nginx" "virtualHosts" ]
    );

  # What a layout needs of disko's `disko.devices`: its tree without functions, scripts and parents. Written against disko of 2023 to
  # 2026, lib/types/*.nix; an attribute that a version lacks is null or "".
  diskoTree =
    devices:
    let
      listOf = f: set: builtins.attrValues (builtins.mapAttrs f set);
      words = set: name: map toString (get set [ name ] [ ]);

      content =
        value:
        if value == null then
          null
        else
          attributeTexts [ "type" "device" "name" "vg" "pool" "format" "mountpoint" "filesystem" ] value
          // {
            extraArgs = words value "extraArgs";
            randomEncryption = get value [ "randomEncryption" ] false;
            subvolumes = listOf (name: subvolume: subvolume.name or name) (get value [ "subvolumes" ] { });
            partitions = builtins.sort (a: b: a.priority < b.priority) (listOf partition (partitionsOf value));
            content = content (get value [ "content" ] null);
          };
      # The table of MBR, which disko has for old hosts, keeps its partitions in a list.
      partitionsOf = value: if builtins.isAttrs (value.partitions or null) then value.partitions else { };
      partition =
        name: value:
        attributeTexts [ "device" "label" "uuid" "type" "size" ] value
        // {
          name = value.name or name;
          priority = value.priority or 1000;
          content = content (get value [ "content" ] null);
        };

      kind = name: get devices [ name ] { };
    in
    if !(devices ? disk) then
      { }
    else
      {
        disks = listOf (
          name: value:
          attributeTexts [ "device" ] value
          // {
            name = value.name or name;
            content = content (get value [ "content" ] null);
          }
        ) (kind "disk");
        arrays = listOf (
          name: value:
          attributeTexts [ "level" "metadata" ] value
          // {
            name = value.name or name;
            content = content (get value [ "content" ] null);
          }
        ) (kind "mdadm");
        groups = listOf (name: value: {
          name = value.name or name;
          volumes = listOf (
            volume: lv:
            attributeTexts [ "lvm_type" "pool" ] lv
            // {
              name = lv.name or volume;
              content = content (get lv [ "content" ] null);
            }
          ) (get value [ "lvs" ] { });
        }) (kind "lvm_vg");
        pools = builtins.attrNames (kind "zpool");
      };

  readers = {
    secrets = fact {
      sops = named sopsSecret [ "sops" "secrets" ];
      templates = named template [ "sops" "templates" ];
      age = named ageSecret [ "age" "secrets" ];
      uses = builtins.filter (used: used.path != "") secretUses;
    };

    tunnels = fact tunnels;

    firewall = fact (ports firewall // {
      enable = firewall.enable or false;
      backend = text (get firewall [ "backend" ] (if nftables then "nftables" else "iptables"));
      interfaces = builtins.mapAttrs (_: ports) (firewall.interfaces or { });
      trustedInterfaces = firewall.trustedInterfaces or [ ];
      allowPing = firewall.allowPing or true;
      rejectPackets = firewall.rejectPackets or false;
    });

    sysctls = mapNamed (_: sysctl) (valueOf "sysctls" { });

    zram = fact (
      if zram.enable or false then
        {
          algorithm = zram.algorithm or "zstd";
          memoryPercent = zram.memoryPercent or 50;
          memoryMax = zram.memoryMax or null;
          priority = zram.priority or 5;
          swapDevices = zram.swapDevices or 1;
        }
      else
        null
    );

    ollama = fact (
      if ollama.enable or false then
        {
          host = ollamaOption "host" null;
          port = ollamaOption "port" null;
          listenAddress = ollamaOption "listenAddress" null;
          loadModels = ollamaOption "loadModels" [ ];
          openFirewall = ollamaOption "openFirewall" false;
          acceleration = if acceleration == false then "false" else acceleration;
          environmentVariables = builtins.mapAttrs (_: value: text (toString value)) (
            ollamaOption "environmentVariables" { }
          );
        }
      else
        null
    );

    users = mapNamed user (valueOf "users" { });
    groups = fact (builtins.attrNames (valueOf "groups" { }));
    kernel_params = fact (texts (valueOf "kernel_params" [ ]));
    file_systems = mapNamed fileSystem (valueOf "file_systems" { });
    swap_devices = fact (map (entry: optionalText (entry.device or null)) (valueOf "swap_devices" [ ]));
    swap = fact (
      map (entry: attributeTexts [ "device" ] entry // {
        size = entry.size or null;
        randomlyEncrypted = get entry [ "randomEncryption" "enable" ] false;
      }) (valueOf "swap" [ ])
    );
    luks_devices = fact (builtins.attrNames (valueOf "luks_devices" { }));
    luks = fact (
      builtins.mapAttrs (
        name: value:
        attributeTexts [ "device" "keyFile" "header" ] value // {
          name = value.name or name;
          headless = builtins.any (option: builtins.elem option [ "headless" "headless=true" "headless=yes" "headless=1" ]) (
            get value [ "crypttabExtraOpts" ] [ ]
          );
          # The scripted stage 1 follows none.
          options = if at [ "boot" "initrd" "systemd" "enable" ] false then texts (get value [ "crypttabExtraOpts" ] [ ]) else [ ];
        }
      ) (valueOf "luks" { })
    );

    initrd_ssh =
      let
        ssh = valueOf "initrd_ssh" { };
        bySystemd = at [ "boot" "initrd" "systemd" "enable" ] false;
        network = at [ "boot" "initrd" "network" "enable" ] false || at [ "boot" "initrd" "systemd" "network" "enable" ] false;
      in
      fact (
        if !(get ssh [ "enable" ] false && network) then
          null
        else
          {
            inherit (ssh) port;
            inherit bySystemd;
            # As initrd-ssh.nix names them in the initrd.
            hostKeys = map (
              key:
              if builtins.isString key then
                text key
              else
                let
                  name = baseNameOf (toString key);
                in
                text "/etc/ssh/${builtins.substring 1 (builtins.stringLength name) name}"
            ) ssh.hostKeys;
          }
      );

    swraid =
      let
        swraid = valueOf "swraid" null;
      in
      fact (
        if swraid == null then
          null
        else
          {
            enable = swraid.enable or false;
            mdadmConf = text (swraid.mdadmConf or "");
          }
      );
    crypttab = fact (text (get (valueOf "crypttab" { }) [ "text" ] ""));
    disko = fact (diskoTree (valueOf "disko" { }));

    # What stage 1 may wait for: the text of its commands, and the devices that its units are ordered after.
    initrd_text =
      let
        initrd = valueOf "initrd_text" { };
        commands = map (name: toString (get initrd [ name ] "")) [
          "preDeviceCommands"
          "postDeviceCommands"
          "preLVMCommands"
          "postMountCommands"
        ];
        ofService =
          service:
          [ (toString (get service [ "script" ] "")) ]
          ++ builtins.concatMap (name: map toString (get service [ name ] [ ])) [
            "requires"
            "bindsTo"
            "wants"
            "after"
          ];
        services = get initrd [ "systemd" "services" ] { };
        ownNames = builtins.filter (name: builtins.match "systemd-.*|initrd-.*|dbus.*" name == null) (
          builtins.attrNames services
        );
      in
      fact (
        text (
          builtins.concatStringsSep "\n" (
            commands ++ builtins.concatMap (name: ofService services.${name}) ownNames
          )
        )
      );

    warnings = fact (texts (valueOf "warnings" [ ]));
    units = mapNamed unit (valueOf "units" { });

    # Of the VM variant's own config, where its settings stand at the top.
    vm = fact {
      memorySize = at [ "virtualisation" "memorySize" ] null;
      cores = at [ "virtualisation" "cores" ] null;
      graphics = at [ "virtualisation" "graphics" ] null;
      restrictNetwork = at [ "virtualisation" "restrictNetwork" ] false;
    };
  };
in
builtins.mapAttrs (name: _: readers.${name} or (safe.json (valueOf name null))) paths
