# Whether a host's VM gets its store as an image, and whether its state can be saved, which takes such a store:
# { storeImage; refusal; changed; }.
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

  obstacle =
    if own [ "useNixStoreImage" ] null == null then
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

  # Where nixpkgs shares directories over virtiofs, a run without snapshots has its store as an image too: virtiofsd is one more
  # process with rights of its own, and nothing that the plugin needs comes over a share. A host that declares shares keeps it.
  virtiofs = own [ "qemu" "enableSharedMemory" ] null != null;

  plain = value: if builtins.isAttrs value then builtins.attrNames value else value;

  # Options that the image decides; an attribute set is told by its names.
  difference =
    config: path:
    let
      before = plain (own path null);
      after = plain (safe.get config ([ "virtualisation" ] ++ path) null);
    in
    if before == after then
      [ ]
    else
      [
        {
          name = builtins.concatStringsSep "." ([ "virtualisation" ] ++ path);
          value = [
            before
            after
          ];
        }
      ];
in
{
  refusal = if wanted then obstacle else "it was not asked for";
  storeImage = obstacle == "" && (wanted || virtiofs);

  # From the machine's config to what differs from the host's own VM: option path to [ before after ].
  changed =
    config:
    builtins.listToAttrs (
      builtins.concatMap (difference config) [
        [ "useNixStoreImage" ]
        [ "mountHostNixStore" ]
        [ "writableStore" ]
        [ "sharedDirectories" ]
        [
          "qemu"
          "enableSharedMemory"
        ]
      ]
    );
}
