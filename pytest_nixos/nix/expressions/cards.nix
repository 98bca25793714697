# The network cards that a host's config speaks of, and what it wants of each:
# [ { name; hardware; isMatched; addresses; vlans = [ { id; name; addresses; } ]; link; } ], in order of name; and names of VLANs without a card.
#
# A card is what carries a name or an address in `networking.interfaces` or `systemd.network` and is made by nobody: no VLAN, bridge,
# bond, tunnel or wireless device. `link` is what a .link file of the host says of it; `hardware` the address that one matches
# (`isMatched`), else one of QEMU's own range. A host that speaks of no card has one, with the name that the kernel gives.
#
# salt: what sets the hardware addresses that are made apart from those of another host.
{ safe, salt }:
config:
let
  at = path: safe.get config path;
  textOf = value: safe.text (toString value);
  values = path: builtins.attrValues (at path { });
  listed = value: if builtins.isList value then value else if value == null || value == "" then [ ] else [ value ];
  words = value: builtins.filter (w: builtins.isString w && w != "") (
    builtins.concatMap (one: builtins.split "[[:space:]]+" (textOf one)) (listed value)
  );
  unique = list: builtins.attrNames (builtins.listToAttrs (map (name: { inherit name; value = null; }) list));

  interfaces = map (i: {
    name = textOf (i.name or "");
    isMade = safe.get i [ "virtual" ] false;
    addresses = map (a: "${a.address}/${toString a.prefixLength}") (
      safe.get i [ "ipv4" "addresses" ] [ ] ++ safe.get i [ "ipv6" "addresses" ] [ ]
    );
  }) (values [ "networking" "interfaces" ]);

  netdevs = values [ "systemd" "network" "netdevs" ];
  netdevName = n: textOf (safe.get n [ "netdevConfig" "Name" ] "");
  networks = builtins.filter (n: safe.get n [ "enable" ] true) (values [ "systemd" "network" "networks" ]);
  links = builtins.filter (l: safe.get l [ "enable" ] true) (values [ "systemd" "network" "links" ]);

  # A pattern says what a card may be called, not that there is one.
  isName = word: builtins.match "[A-Za-z0-9_.-]+" word != null;
  namesOf = network: builtins.filter isName (words (safe.get network [ "matchConfig" "Name" ] [ ]));
  macsOf = match: map lower (words (safe.get match [ "MACAddress" ] [ ]) ++ words (safe.get match [ "PermanentMACAddress" ] [ ]));
  lower = builtins.replaceStrings [ "A" "B" "C" "D" "E" "F" "-" ] [ "a" "b" "c" "d" "e" "f" ":" ];
  networkAddresses =
    n:
    map textOf (safe.get n [ "address" ] [ ])
    ++ words (safe.get n [ "networkConfig" "Address" ] [ ])
    ++ builtins.concatMap (a: words (safe.get a [ "Address" ] (safe.get a [ "addressConfig" "Address" ] [ ]))) (
      listed (safe.get n [ "addresses" ] [ ])
    );

  virtual =
    builtins.concatMap (kind: builtins.attrNames (at [ "networking" kind ] { })) [
      "bonds"
      "bridges"
      "fooOverUDP"
      "greTunnels"
      "ipips"
      "ipvlans"
      "macvlans"
      "sits"
      "vlans"
      "vswitches"
      "wlanInterfaces"
    ]
    ++ builtins.attrNames (at [ "networking" "wireguard" "interfaces" ] { })
    ++ builtins.attrNames (at [ "networking" "wg-quick" "interfaces" ] { })
    ++ map (i: i.name) (builtins.filter (i: i.isMade) interfaces)
    ++ map netdevName netdevs
    ++ [ "lo" ];
  isCard = name: isName name && !builtins.elem name virtual && builtins.match "(wl|ww|docker|veth|virbr|tun|tap|wg|tailscale).*" name == null;

  scriptedVlans = builtins.attrValues (
    builtins.mapAttrs (name: v: {
      inherit name;
      id = v.id;
      parents = [ (textOf v.interface) ];
    }) (at [ "networking" "vlans" ] { })
  );
  networkdVlans = map (n: rec {
    name = netdevName n;
    id = safe.get n [ "vlanConfig" "Id" ] 0;
    parents = builtins.concatMap (p: if builtins.elem name (words (safe.get p [ "vlan" ] [ ]) ++ words (safe.get p [ "networkConfig" "VLAN" ] [ ])) then namesOf p else [ ]) networks;
  }) (builtins.filter (n: safe.get n [ "netdevConfig" "Kind" ] "" == "vlan") netdevs);
  vlans = scriptedVlans ++ networkdVlans;

  linkName = l: textOf (safe.get l [ "linkConfig" "Name" ] "");
  linksOf = name: builtins.filter (l: linkName l == name || builtins.elem name (words (safe.get l [ "matchConfig" "OriginalName" ] [ ]))) links;
  first = list: if list == [ ] then null else builtins.head list;

  names = builtins.filter isCard (unique (
    map (i: i.name) interfaces
    ++ builtins.concatMap namesOf networks
    ++ map linkName links
    ++ builtins.concatMap (v: v.parents) vlans
    ++ builtins.concatMap (b: map textOf (b.interfaces or [ ])) (values [ "networking" "bridges" ] ++ values [ "networking" "bonds" ])
  ));

  addressesOf =
    name:
    unique (
      builtins.concatMap (i: if i.name == name then i.addresses else [ ]) interfaces
      ++ builtins.concatMap (n: if builtins.elem name (namesOf n) then networkAddresses n else [ ]) networks
    );

  # 52:54:00 is what QEMU gives its cards.
  made =
    name:
    let
      hash = builtins.hashString "sha256" "${salt} ${name}";
      pair = at: builtins.substring at 2 hash;
    in
    "52:54:00:${pair 0}:${pair 2}:${pair 4}";
  matchedOf =
    name: first (builtins.concatMap (l: if linkName l == name then macsOf (l.matchConfig or { }) else [ ]) (linksOf name));

  card = name: {
    inherit name;
    isMatched = matchedOf name != null;
    hardware = if matchedOf name == null then made name else matchedOf name;
    addresses = addressesOf name;
    vlans = map (v: {
      inherit (v) name id;
      addresses = addressesOf v.name;
    }) (builtins.filter (v: builtins.elem name v.parents) vlans);
    link = builtins.foldl' (all: l: all // (l.linkConfig or { })) { } (linksOf name);
  };
  nameless = isMatched: hardware: addresses: {
    name = "";
    inherit hardware isMatched addresses;
    vlans = [ ];
    link = { };
  };

  named = map card names;
  # Matched by their hardware address alone, they keep the name that the kernel gives.
  unnamed = builtins.concatMap (
    n: if namesOf n == [ ] then map (hardware: nameless true hardware (networkAddresses n)) (macsOf (n.matchConfig or { })) else [ ]
  ) networks;
  found = named ++ builtins.filter (c: !builtins.any (other: other.hardware == c.hardware) named) unnamed;
in
{
  cards = if found == [ ] then [ (nameless false (made "") [ ]) ] else found;
  orphans = map (v: v.name) (builtins.filter (v: v.parents == [ ] || v.parents == [ "" ]) vlans);
}
