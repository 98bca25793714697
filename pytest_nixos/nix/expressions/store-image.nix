# Whether a host's VM gets its store as an image, and whether its state can be saved, which takes such a store.
#
# wanted: whether it was asked for.
{ safe, wanted }:
{
  inherit wanted;

  # From the config of a VM that may have one (instrumentation.nix) to { isFit; isUsed; refusal; changed; }.
  #
  # isFit: false where the host asks something that goes with no image, and the VM has to be made without. refusal: why the VM's state
  # cannot be saved. changed: what differs from the host's own VM for the image, option path to [ before after ].
  of =
    config:
    let
      # A host that is no work of the module system has none of ours.
      inherit (config.system.build.pytestNixosVm or { asImage = false; asked = { }; }) asImage asked;
      get = path: safe.get config ([ "virtualisation" ] ++ path);
      askedOf = path: default: safe.get asked (path ++ [ "value" ]) default;
      priorityOf = path: safe.get asked (path ++ [ "priority" ]) null;

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
        builtins.attrNames (askedOf [ "sharedDirectories" ] { })
        ++ builtins.concatMap deviceOfShare (builtins.attrValues (safe.get config [ "fileSystems" ] { }))
      );

      obstacle =
        if !(asked ? useNixStoreImage) then
          "this release of nixpkgs makes no image of the store"
        else if get [ "useBootLoader" ] false then
          "it starts by a boot loader (virtualisation.useBootLoader)"
        else if get [ "useHostCerts" ] false then
          "it takes certificates from the host machine (virtualisation.useHostCerts)"
        else if shares != [ ] then
          "it mounts a share of the host machine (${builtins.head shares})"
        else
          "";

      # What these defaults and nixpkgs' share of the store are follows, in this VM, from the image.
      byDefault = path: priorityOf path == 1500;
      mountsStore =
        if asked ? mountHostNixStore && !(byDefault [ "mountHostNixStore" ]) then
          askedOf [ "mountHostNixStore" ] false
        else
          !(askedOf [ "useNixStoreImage" ] false);
      isWritable =
        if asked ? mountHostNixStore && byDefault [ "writableStore" ] then
          askedOf [ "writableStore" ] false || mountsStore
        else
          askedOf [ "writableStore" ] null;
      shared =
        askedOf [ "sharedDirectories" ] { }
        // (if mountsStore && priorityOf [ "sharedDirectories" ] == 100 then { nix-store = null; } else { });

      difference =
        {
          path,
          before ? askedOf path null,
          after ? get path null,
        }:
        if !(safe.get asked path null != null) || before == after then
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
      isUsed = asImage && obstacle == "";
    in
    {
      inherit isUsed;
      isFit = isUsed || !asImage;
      refusal =
        if !wanted then
          "it was not asked for"
        else if obstacle == "" && get [ "tpm" "enable" ] false then
          "it has a TPM, whose state lies outside of QEMU (virtualisation.tpm.enable)"
        else
          obstacle;
      changed =
        if !isUsed then
          { }
        else
          builtins.listToAttrs (
            builtins.concatMap difference [
              { path = [ "useNixStoreImage" ]; }
              {
                path = [ "mountHostNixStore" ];
                before = mountsStore;
              }
              {
                path = [ "writableStore" ];
                before = isWritable;
              }
              # Told by their names.
              {
                path = [ "sharedDirectories" ];
                before = builtins.attrNames shared;
                after = builtins.attrNames (get [ "sharedDirectories" ] { });
              }
              { path = [ "qemu" "enableSharedMemory" ]; }
            ]
          );
    };
}
