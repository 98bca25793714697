# The facts of one evaluated NixOS config, each as { readable; value; } so that one that throws hides no other.
#
# paths: name of the fact to its option path, as nix/host_facts.py declares them. A fact that is plain JSON needs no reader here.
#
# Attributes of a value are named as the options are, so that a difference can be told by its option path. Written with builtins alone,
# against options of nixpkgs 22.05 to 26.05; an option that a release lacks is null.
{ safe, paths }:
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
    uid = value.uid or null;
    isNormalUser = value.isNormalUser or false;
    isSystemUser = value.isSystemUser or false;
    group = value.group or "";
    extraGroups = value.extraGroups or [ ];
    home = text (toString (value.home or ""));
    shell = optionalText (value.shell or null);
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
  };

  readers = {
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
