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
            while true; do
                if [ -e /crypt-ramfs/passphrase ]; then
                    echo "reused"
                    passphrase=$(cat /crypt-ramfs/passphrase)
                    break
                fi
                # What cryptsetup-askpass waits for.
                echo -n "${dev.device}" > /crypt-ramfs/device
                passphrase=
                IFS= read -t 1 -r passphrase < /dev/console
                if [ -n "$passphrase" ]; then
                    echo -n "$passphrase" > /crypt-ramfs/passphrase
                    echo
                    break
                fi
            done
            echo -n "Verifying passphrase for ${dev.device}..."
            if echo -n "$passphrase" | cryptsetup luksOpen "$device" ${dev.name} --key-file=-; then
                echo " - success"
                return
            fi
            echo " - failure"
            rm -f /crypt-ramfs/passphrase
        done
    }
    open_normally || fail
  '';

  # A passphrase is tried with each further device.
  openAll = isMeant: ''
    mkdir -p /run/cryptsetup /crypt-ramfs
    mount -t ramfs none /crypt-ramfs
    ${lib.concatMapStrings open (lib.filter isMeant (lib.attrValues devices))}
    umount /crypt-ramfs
  '';

  bySystemd = config.boot.initrd.systemd.enable;
  crypttabLine = dev: "${dev.name} ${dev.device} ${if dev.keyFile == null then "-" else dev.keyFile} ${lib.concatStringsSep "," (dev.crypttabExtraOpts ++ lib.optional dev.allowDiscards "discard")}\n";

  askpass = pkgs.writeText "cryptsetup-askpass" ''
    #!/bin/sh
    while true; do
        tries=0
        until [ -e /crypt-ramfs/device ]; do
            tries=$((tries + 1))
            if [ $tries -gt 10 ]; then echo "Passphrase is not requested now" >&2; exit 1; fi
            sleep 1
        done
        device=$(cat /crypt-ramfs/device)
        echo -n "Passphrase for $device: "
        IFS= read -rs passphrase
        echo
        rm /crypt-ramfs/device
        echo -n "$passphrase" > /crypt-ramfs/passphrase
    done
  '';
in
{
  options.boot.initrd.luks.devices = mkOption { type = types.attrsOf (types.submodule device); default = { }; };

  config = lib.mkIf (devices != { }) (lib.mkMerge [
    {
      boot.initrd.availableKernelModules = [ "dm_mod" "dm_crypt" "cryptd" "ecb" "xts" "aesni_intel" "af_alg" "algif_skcipher" ];
      environment.systemPackages = [ pkgs.cryptsetup ];
    }
    (lib.mkIf (!bySystemd) {
      boot.initrd.extraUtilsCommands = ''
        copy_bin_and_libs ${pkgs.cryptsetup}/bin/cryptsetup
        cp ${askpass} $root/bin/cryptsetup-askpass
        chmod +x $root/bin/cryptsetup-askpass
      '';
      boot.initrd.preLVMCommands = openAll (dev: dev.preLVM);
      boot.initrd.postDeviceCommands = openAll (dev: !dev.preLVM);
    })
    (lib.mkIf bySystemd {
      boot.initrd.systemd = {
        contents."/etc/crypttab".text = lib.concatMapStrings crypttabLine (lib.attrValues devices);
        additionalUpstreamUnits = [ "cryptsetup-pre.target" "cryptsetup.target" "remote-cryptsetup.target" ];
        storePaths = map (name: "${pkgs.systemd}/lib/systemd/${name}") [ "systemd-cryptsetup" "systemd-reply-password" "system-generators/systemd-cryptsetup-generator" ]
          ++ map (name: "${pkgs.debian}/usr/lib/x86_64-linux-gnu/${name}") [ "cryptsetup/libcryptsetup-token-systemd-tpm2.so" "libtss2-esys.so.0" "libtss2-mu.so.0" "libtss2-rc.so.0" "libtss2-tcti-device.so.0" ]
          ++ [ "${pkgs.debian}/usr/bin/systemd-cryptsetup" ];
      };
    })
  ]);
}
