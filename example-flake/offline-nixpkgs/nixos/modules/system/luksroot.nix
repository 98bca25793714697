# Encrypted devices that stage 1 opens: by a passphrase at the console, or by a key file. As in nixpkgs, without its tokens.
{ config, lib, pkgs, ... }:
let
  inherit (lib) mkOption types;
  devices = config.boot.initrd.luks.devices;

  device = { name, ... }: {
    # Options of tokens and of what opens faster.
    freeformType = types.attrsOf types.anything;
    options = {
      name = mkOption { type = types.str; default = name; visible = false; };
      device = mkOption { type = types.str; };
      header = mkOption { type = types.nullOr types.str; default = null; };
      keyFile = mkOption { type = types.nullOr types.str; default = null; };
      preLVM = mkOption { type = types.bool; default = true; };
      fallbackToPassword = mkOption { type = types.bool; default = false; };
      allowDiscards = mkOption { type = types.bool; default = false; };
      bypassWorkqueues = mkOption { type = types.bool; default = false; };
      crypttabExtraOpts = mkOption { type = types.listOf types.singleLineStr; default = [ ]; };
    };
  };

  open = dev: ''
    open_normally() {
        local device passphrase
        device=$(resolve ${dev.device})
        ${lib.optionalString (dev.keyFile != null) ''
          if cryptsetup luksOpen "$device" ${dev.name} --key-file=${dev.keyFile}; then return; fi
          echo "Key File ${dev.keyFile} failed!"
          ${lib.optionalString (!dev.fallbackToPassword) "return 1"}
        ''}
        while true; do
            echo -n "Passphrase for ${dev.device}: "
            IFS= read -r passphrase < /dev/console || sleep 1
            echo
            echo -n "Verifying passphrase for ${dev.device}..."
            if echo -n "$passphrase" | cryptsetup luksOpen "$device" ${dev.name} --key-file=-; then
                echo " - success"
                return
            fi
            echo " - failure"
        done
    }
    mkdir -p /run/cryptsetup
    open_normally || fail
  '';
in
{
  options.boot.initrd.luks.devices = mkOption { type = types.attrsOf (types.submodule device); default = { }; };

  config = lib.mkIf (devices != { }) {
    boot.initrd.availableKernelModules = [ "dm_mod" "dm_crypt" "cryptd" "ecb" "xts" "aesni_intel" "af_alg" "algif_skcipher" ];
    boot.initrd.extraUtilsCommands = "copy_bin_and_libs ${pkgs.cryptsetup}/bin/cryptsetup";
    boot.initrd.preLVMCommands = lib.concatMapStrings open (lib.filter (dev: dev.preLVM) (lib.attrValues devices));
    boot.initrd.postDeviceCommands = lib.concatMapStrings open (lib.filter (dev: !dev.preLVM) (lib.attrValues devices));
    environment.systemPackages = [ pkgs.cryptsetup ];
  };
}
