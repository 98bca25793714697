# WireGuard between members of a cluster: what a config declares of it, and the module that gives a member test keys.
#
# Interfaces stand in three trees of options. Of peers of networkd, releases up to 24.05 have { wireguardPeerConfig = { PublicKey; ... }; }, later
# ones { PublicKey; ... }.
#
# wanted: null, or { trees; interfaces; hosts; }. trees: dotted paths of the trees that the host uses. interfaces: by name of the interface
# { file; peers; }: the file that its private key comes from (null leaves what is declared), and by declared public key { key; preshared; }, the test key
# and the file of the preshared key (null as before). hosts: addresses to names.
{ safe, wanted }:
let
  scripted = "networking.wireguard.interfaces";
  quick = "networking.wg-quick.interfaces";
  networkd = "systemd.network.netdevs";

  sectionOf = peer: if (peer.wireguardPeerConfig or { }) != { } then peer.wireguardPeerConfig else peer;
  nameOf = netdev: toString (safe.get netdev [ "netdevConfig" "Name" ] "");

  # [ { tree; name; addresses; port; keyFile; key; configFile; peers = [ { key; presharedFile; preshared; ips; endpoint; found; } ]; } ]; what is not
  # declared is "". key is the private one where it stands in the config, found the addresses that networking.hosts gives the endpoint's name.
  of =
    config:
    let
      at = path: safe.get config path;
      textOf =
        set: name:
        let
          found = safe.get set [ name ] null;
          forced = safe.fact (if found == null then "" else safe.text (toString found));
        in
        if forced.readable then forced.value else "";
      listed = value: if builtins.isList value then value else if value == null || value == "" then [ ] else [ value ];
      words = value: builtins.filter (word: builtins.isString word && word != "") (
        builtins.concatMap (one: builtins.split "[[:space:],]+" (safe.text (toString one))) (listed value)
      );
      entries = set: map (name: { inherit name; value = set.${name}; }) (builtins.attrNames set);

      hosts = at [ "networking" "hosts" ] { };
      addressesOf =
        endpoint:
        let
          name = builtins.match "([^:]+):[0-9]+" endpoint;
        in
        if name == null then
          [ ]
        else
          builtins.filter (address: builtins.elem (builtins.head name) hosts.${address}) (builtins.attrNames hosts);

      ofInterface = tree: address: { name, value }: {
        inherit tree name;
        addresses = words (safe.get value [ address ] [ ]);
        port = textOf value "listenPort";
        keyFile = textOf value "privateKeyFile";
        key = textOf value "privateKey";
        configFile = textOf value "configFile";
        peers = map (peer: {
          key = textOf peer "publicKey";
          presharedFile = textOf peer "presharedKeyFile";
          preshared = textOf peer "presharedKey" != "";
          ips = words (safe.get peer [ "allowedIPs" ] [ ]);
          endpoint = textOf peer "endpoint";
          found = addressesOf (textOf peer "endpoint");
        }) (safe.get value [ "peers" ] [ ]);
      };

      networks = builtins.filter (network: safe.get network [ "enable" ] true) (
        builtins.attrValues (at [ "systemd" "network" "networks" ] { })
      );
      networkAddresses = network:
        words (safe.get network [ "address" ] [ ])
        ++ words (safe.get network [ "networkConfig" "Address" ] [ ])
        ++ builtins.concatMap (one: words (safe.get one [ "Address" ] (safe.get one [ "addressConfig" "Address" ] [ ]))) (
          listed (safe.get network [ "addresses" ] [ ])
        );
      ofNetdev =
        netdev:
        let
          name = nameOf netdev;
          settings = safe.get netdev [ "wireguardConfig" ] { };
        in
        {
          inherit name;
          tree = networkd;
          addresses = builtins.concatMap networkAddresses (
            builtins.filter (network: builtins.elem name (words (safe.get network [ "matchConfig" "Name" ] [ ]))) networks
          );
          port = textOf settings "ListenPort";
          keyFile = textOf settings "PrivateKeyFile";
          # nixpkgs allows no keys in a netdev.
          key = "";
          configFile = "";
          peers = map (peer: {
            key = textOf (sectionOf peer) "PublicKey";
            presharedFile = textOf (sectionOf peer) "PresharedKeyFile";
            preshared = false;
            ips = words (safe.get (sectionOf peer) [ "AllowedIPs" ] [ ]);
            endpoint = textOf (sectionOf peer) "Endpoint";
            found = addressesOf (textOf (sectionOf peer) "Endpoint");
          }) (safe.get netdev [ "wireguardPeers" ] [ ]);
        };
      isWireguard = netdev: safe.get netdev [ "enable" ] true && safe.get netdev [ "netdevConfig" "Kind" ] "" == "wireguard";
    in
    map (ofInterface scripted "ips") (
      if at [ "networking" "wireguard" "enable" ] true then entries (at [ "networking" "wireguard" "interfaces" ] { }) else [ ]
    )
    ++ map (ofInterface quick "address") (entries (at [ "networking" "wg-quick" "interfaces" ] { }))
    ++ map ofNetdev (
      if at [ "systemd" "network" "enable" ] false then
        builtins.filter isWireguard (builtins.attrValues (at [ "systemd" "network" "netdevs" ] { }))
      else
        [ ]
    );

  # The options are what the host declares but for keys, by `apply`: one definition that is stronger would hide the host's own.
  module =
    { lib, ... }:
    let
      interface = name: wanted.interfaces.${name} or { file = null; peers = { }; };
      has = tree: builtins.elem tree wanted.trees;

      tunnel =
        name: value:
        let
          given = interface name;
        in
        value
        // lib.optionalAttrs (given.file != null) {
          privateKey = null;
          privateKeyFile = given.file;
        }
        // {
          peers = map (
            peer:
            let
              known = given.peers.${toString peer.publicKey} or null;
            in
            if known == null then
              peer
            else
              peer
              // { publicKey = known.key; }
              // lib.optionalAttrs (known.preshared != null) {
                presharedKey = null;
                presharedKeyFile = known.preshared;
              }
          ) value.peers;
        };

      section =
        given: peer:
        let
          known = given.peers.${toString (peer.PublicKey or "")} or null;
        in
        if known == null then
          peer
        else
          peer
          // { PublicKey = known.key; }
          // lib.optionalAttrs (known.preshared != null) { PresharedKeyFile = known.preshared; };
      netdev =
        _: value:
        let
          given = interface (nameOf value);
        in
        value
        // lib.optionalAttrs (given.file != null) {
          wireguardConfig = value.wireguardConfig // { PrivateKeyFile = given.file; };
        }
        // lib.optionalAttrs (given.peers != { }) {
          wireguardPeers = map (
            peer:
            if (peer.wireguardPeerConfig or { }) != { } then
              peer // { wireguardPeerConfig = section given peer.wireguardPeerConfig; }
            else
              section given peer
          ) value.wireguardPeers;
        };
    in
    {
      _file = "pytest-nixos tunnels";
      options = {
        networking =
          lib.optionalAttrs (has scripted) { wireguard.interfaces = lib.mkOption { apply = lib.mapAttrs tunnel; }; }
          // lib.optionalAttrs (has quick) { wg-quick.interfaces = lib.mkOption { apply = lib.mapAttrs tunnel; }; };
        systemd = lib.optionalAttrs (has networkd) {
          network.netdevs = lib.mkOption { apply = lib.mapAttrs netdev; };
        };
      };
      config.networking = { inherit (wanted) hosts; };
    };
in
{
  inherit of;
  modules = if wanted == null then [ ] else [ module ];
}
