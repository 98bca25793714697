# The derivation of a host's Proxmox template, null where the host is none. Applied to a flake's `nixosConfigurations`.
{ safe, name }:
hosts:
let
  build = safe.get hosts [ name "config" "system" "build" ] { };
  # proxmox-lxc.nix itself; from 25.05 on every host also offers images.
  image =
    if build ? tarball then
      build.tarball
    else
      safe.get build [ "images" "proxmox-lxc" ] null;
in
if image == null then null else safe.text image.drvPath
