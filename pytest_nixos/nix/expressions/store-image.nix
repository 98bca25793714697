# Whether the state of a host's VM can be saved, which takes a store that is an image: { storeImage; refusal; changed; }.
#
# wanted: whether it was asked for.
{ safe, wanted }:
host:
let
  # What the host asks of its own VM.
  vm = safe.get host.config [ "virtualisation" "vmVariant" ] { };
  own = name: safe.get vm ([ "virtualisation" ] ++ name);

  # QEMU refuses to save a VM with a mounted share. Those that nixpkgs makes by itself can be left out.
  dispensable = [
    "nix-store"
    "xchg"
    "shared"
  ];
  deviceOfShare =
    fs:
    if builtins.elem (safe.get fs [ "fsType" ] "") [ "9p" "virtiofs" ] then
      [ (toString (safe.get fs [ "device" ] "")) ]
    else
      [ ];
  shares = builtins.filter (name: !builtins.elem name dispensable) (
    builtins.attrNames (own [ "sharedDirectories" ] { })
    ++ builtins.concatMap deviceOfShare (builtins.attrValues (safe.get vm [ "fileSystems" ] { }))
  );

  refusal =
    if !wanted then
      "it was not asked for"
    else if own [ "useNixStoreImage" ] null == null then
      "this release of nixpkgs makes no image of the store"
    else if own [ "tpm" "enable" ] false then
      "it has a TPM, whose state lies outside of QEMU (virtualisation.tpm.enable)"
    else if own [ "useBootLoader" ] false then
      "it starts by a boot loader (virtualisation.useBootLoader)"
    else if own [ "useHostCerts" ] false then
      "it takes certificates from the host machine (virtualisation.useHostCerts)"
    else if shares != [ ] then
      "it mounts a share of the host machine (${builtins.head shares})"
    else
      "";

  plain = value: if builtins.isAttrs value then builtins.attrNames value else value;

  # Options that the image decides; an attribute set is told by its names.
  difference =
    config: name:
    let
      before = plain (own [ name ] null);
      after = plain (safe.get config [ "virtualisation" name ] null);
    in
    if before == after then
      [ ]
    else
      [
        {
          name = "virtualisation.${name}";
          value = [
            before
            after
          ];
        }
      ];
in
{
  inherit refusal;
  storeImage = refusal == "";

  # From the machine's config to what differs from the host's own VM: option path to [ before after ].
  changed =
    config:
    builtins.listToAttrs (
      builtins.concatMap (difference config) [
        "useNixStoreImage"
        "mountHostNixStore"
        "writableStore"
        "sharedDirectories"
      ]
    );
}
