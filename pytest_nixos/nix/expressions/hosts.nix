# Names and declared addresses of all hosts. Applied to a flake's `nixosConfigurations`.
{ safe }:
builtins.mapAttrs (
  _: host:
  let
    at = path: default: safe.get host ([ "config" ] ++ path) default;
    interfaces = at [ "networking" "interfaces" ] { };
    addressesOf =
      interface:
      map (entry: safe.text entry.address) (
        safe.get interface [ "ipv4" "addresses" ] [ ] ++ safe.get interface [ "ipv6" "addresses" ] [ ]
      );
  in
  {
    hostName = safe.text (at [ "networking" "hostName" ] "");
    addresses = builtins.concatMap addressesOf (builtins.attrValues interfaces);
  }
)
