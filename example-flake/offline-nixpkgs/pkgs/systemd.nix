# systemd of the Debian tree. Its units are rewritten to call programs by their store path, since a NixOS guest has no /usr/bin.
{ lib, pkgs }:
pkgs.runCommand "systemd-257"
{
  pname = "systemd";
  version = "257";
  passthru = { interfaceVersion = 2; withBootloader = false; util-linux = pkgs.util-linux; kmod = pkgs.kmod; };
} ''
  mkdir -p $out/bin $out/lib/systemd $out/example/systemd/system $out/example/systemd/user
  for program in $debian/usr/bin/*ctl $debian/usr/bin/systemd-* $debian/usr/bin/run0 $debian/usr/bin/udevadm; do
    ln -s $program $out/bin/
  done
  for program in halt poweroff reboot shutdown init runlevel telinit; do
    [ -e $debian/usr/bin/systemctl ] && ln -s $debian/usr/bin/systemctl $out/bin/$program
  done
  for entry in $debian/usr/lib/systemd/*; do
    case ''${entry##*/} in
      system|user) ;;
      *) ln -s $entry $out/lib/systemd/ ;;
    esac
  done
  ln -s $debian/usr/lib/udev $out/lib/udev
  ln -s $debian/usr/lib/tmpfiles.d $out/lib/tmpfiles.d
  ln -s $debian/usr/lib/sysctl.d $out/lib/sysctl.d
  for kind in system user; do
    cp -r $debian/usr/lib/systemd/$kind/. $out/example/systemd/$kind/
    chmod -R u+w $out/example/systemd/$kind
    find $out/example/systemd/$kind -type f | while read -r unit; do
      sed -i -e "s,^\(Exec[A-Za-z]*=[-+@!:|]*\)/\(usr/\)\?\(s\?bin\)/,\1$debian/usr/\3/," \
        -e "s,^\(Exec[A-Za-z]*=[-+@!:|]*\)\([a-z]\),\1$debian/usr/bin/\2," \
        -e "s,^\(ConditionFileIsExecutable=!\?\)/\(usr/\)\?\(s\?bin\)/,\1$debian/usr/\3/," "$unit"
    done
  done
  ln -s $out/example/systemd/system $out/lib/systemd/system
  ln -s $out/example/systemd/user $out/lib/systemd/user
''
