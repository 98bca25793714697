# Numbers of users and groups that NixOS fixes, as far as the stand-in has their services.
{ lib, config, ... }:
{
  options.ids = {
    uids = lib.mkOption { type = lib.types.attrsOf lib.types.int; internal = true; };
    gids = lib.mkOption { type = lib.types.attrsOf lib.types.int; internal = true; };
  };
  config.ids = {
    uids = { root = 0; messagebus = 4; nobody = 65534; systemd-journal-gateway = 110; systemd-network = 152; systemd-resolve = 153; systemd-timesync = 154; nixbld = 30000; };
    gids = {
      root = 0; wheel = 1; kmem = 2; tty = 3; messagebus = 4; haldaemon = 5; disk = 6; audio = 17; floppy = 18; uucp = 19; lp = 20; cdrom = 24; tape = 25; video = 26;
      dialout = 27; adm = 55; users = 100; systemd-journal = 62; keys = 96; systemd-journal-gateway = 110; systemd-network = 152; systemd-resolve = 153; systemd-timesync = 154;
      input = 174; sgx = 304; render = 303; kvm = 302; utmp = 29; nogroup = 65534; nixbld = 30000; shadow = 318;
    };
  };
}
