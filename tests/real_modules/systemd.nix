# systemd of Debian: its units call programs by their store path, and lie where nixpkgs' systemd has them.
{ lib, final, programs, package }:
package "systemd" {
  debs = [ "systemd" "systemd-sysv" "udev" "systemd-container" "systemd-coredump" "systemd-cryptsetup" "systemd-oomd" "systemd-resolved" "systemd-timesyncd" "libsystemd0" "libudev1" "libnss-systemd" "libnss-myhostname" "libnss-resolve" "libpam-systemd" "systemd-boot" "systemd-boot-efi" ];
  main = "systemctl";
  copied = [ "bin/udevadm" "lib/systemd/systemd-sysctl" "lib/udev/*_id" ];
  passthru = {
    interfaceVersion = 2;
    withBootloader = true;
    withCryptsetup = true;
    withEfi = true;
    withHostnamed = true;
    withImportd = true;
    withLocaled = true;
    withMachined = true;
    withPortabled = true;
    withTimedated = true;
    withTpm2Tss = true;
    withUtmp = false;
    kmod = final.kmod;
    util-linux = final.util-linux;
  };
  extra = ''
    mkdir -p $out/example/systemd $out/example/tmpfiles.d $out/example/sysctl.d
    for kind in system user; do
      mv $out/lib/systemd/$kind $out/example/systemd/
      ln -s $out/example/systemd/$kind $out/lib/systemd/$kind
    done
    cp -rL --no-preserve=mode ${programs}/usr/lib/tmpfiles.d/. $out/example/tmpfiles.d/
    cp -rL --no-preserve=mode ${programs}/usr/lib/sysctl.d/. $out/example/sysctl.d/
    sed -i "s,/usr/lib/systemd,$out/lib/systemd," $out/example/sysctl.d/*

    # What is compiled in as /usr/lib/systemd: Debian's own units are none of the host's.
    mkdir $out/compiled-in
    for entry in ${programs}/usr/lib/systemd/*; do
      case ''${entry##*/} in
        system | user | system-preset | user-preset | *-generators) ;;
        *) ln -s $entry $out/compiled-in/ ;;
      esac
    done
    mkdir $out/compiled-in-udev
    ln -s ${programs}/usr/lib/udev/*_* ${programs}/usr/lib/udev/iocost $out/compiled-in-udev/
    mkdir $out/compiled-in/system-generators
    ln -s ${programs}/usr/lib/systemd/system-generators/* $out/compiled-in/system-generators/
    rm $out/compiled-in/system-generators/zram-generator
  '';
}
