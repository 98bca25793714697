# Packages that are programs of the Debian tree: package name -> programs (the first is the main one).
{
  apparmor-parser = [ "apparmor_parser" ];
  apparmor-bin-utils = [ "aa-status" "aa-enabled" "aa-exec" ];
  audit = [ "auditctl" "auditd" "augenrules" "aureport" "ausearch" "aulast" "ausyscall" ];
  btrfs-progs = [ "btrfs" "btrfsck" "btrfstune" "btrfs-convert" "btrfs-image" "btrfs-map-logical" "fsck.btrfs" "mkfs.btrfs" ];
  bzip2 = [ "bzip2" "bunzip2" "bzcat" ];
  coreutils = [
    "[" "arch" "b2sum" "base32" "base64" "basename" "basenc" "cat" "chgrp" "chmod" "chown" "chroot" "cksum" "comm" "cp" "csplit" "cut" "date" "dd"
    "df" "dir" "dircolors" "dirname" "du" "echo" "env" "expand" "expr" "factor" "false" "fmt" "fold" "groups" "head" "hostid" "id" "install"
    "join" "link" "ln" "logname" "ls" "md5sum" "mkdir" "mkfifo" "mknod" "mktemp" "mv" "nice" "nl" "nohup" "nproc" "numfmt" "od" "paste" "pathchk"
    "pinky" "pr" "printenv" "printf" "ptx" "pwd" "readlink" "realpath" "rm" "rmdir" "runcon" "seq" "sha1sum" "sha224sum" "sha256sum" "sha384sum"
    "sha512sum" "shred" "shuf" "sleep" "sort" "split" "stat" "stdbuf" "stty" "sum" "sync" "tac" "tail" "tee" "test" "timeout" "touch" "tr"
    "true" "truncate" "tsort" "tty" "uname" "unexpand" "uniq" "unlink" "users" "vdir" "wc" "who" "whoami" "yes"
  ];
  cryptsetup = [ "cryptsetup" ];
  curl = [ "curl" ];
  dbus = [ "dbus-daemon" "dbus-send" "dbus-monitor" "dbus-uuidgen" ];
  dhcpcd = [ "dhcpcd" ];
  diffutils = [ "diff" "cmp" "diff3" "sdiff" ];
  e2fsprogs = [ "e2fsck" "mke2fs" "mkfs.ext4" "fsck.ext4" "fsck.ext3" "fsck.ext2" "tune2fs" "resize2fs" "dumpe2fs" "e2label" "chattr" "lsattr" "badblocks" "debugfs" "filefrag" ];
  dosfstools = [ "mkfs.vfat" "fsck.vfat" "mkfs.fat" "fsck.fat" "fatlabel" ];
  earlyoom = [ "earlyoom" ];
  erofs-utils = [ "mkfs.erofs" "fsck.erofs" "dump.erofs" ];
  findutils = [ "find" "xargs" ];
  getent = [ "getent" ];
  gnugrep = [ "grep" "egrep" "fgrep" ];
  gnused = [ "sed" ];
  gnutar = [ "tar" ];
  gzip = [ "gzip" "gunzip" "zcat" ];
  hostname-debian = [ "hostname" ];
  iproute2 = [ "ip" "ss" "bridge" "tc" "nstat" ];
  iputils = [ "ping" ];
  jq = [ "jq" ];
  kmod = [ "kmod" "lsmod" "modprobe" "insmod" "rmmod" "modinfo" "depmod" ];
  less = [ "less" ];
  libcap = [ "capsh" "getcap" "setcap" "getpcaps" ];
  logrotate = [ "logrotate" ];
  lsof = [ "lsof" ];
  lvm2 = [
    "lvm" "dmsetup" "lvchange" "lvconvert" "lvcreate" "lvdisplay" "lvextend" "lvreduce" "lvremove" "lvrename" "lvresize" "lvs" "lvscan" "pvchange" "pvck" "pvcreate"
    "pvdisplay" "pvmove" "pvremove" "pvresize" "pvs" "pvscan" "vgcfgbackup" "vgcfgrestore" "vgchange" "vgck" "vgcreate" "vgdisplay" "vgexport" "vgextend" "vgimport"
    "vgmerge" "vgmknodes" "vgreduce" "vgremove" "vgrename" "vgs" "vgscan" "vgsplit"
  ];
  mdadm = [ "mdadm" "mdmon" ];
  nats-server = [ "nats-server" ];
  nftables = [ "nft" ];
  nix = [ "nix" "nix-build" "nix-channel" "nix-collect-garbage" "nix-copy-closure" "nix-daemon" "nix-env" "nix-hash" "nix-instantiate" "nix-prefetch-url" "nix-shell" "nix-store" ];
  openssh = [ "ssh" "sshd" "ssh-keygen" "ssh-add" "ssh-agent" "ssh-keyscan" "scp" "sftp" "ssh-copy-id" ];
  openssl = [ "openssl" ];
  patch = [ "patch" ];
  procps = [ "ps" "free" "kill" "pgrep" "pkill" "pidof" "pmap" "pwdx" "sysctl" "top" "uptime" "vmstat" "w" "watch" ];
  prometheus-node-exporter = [ "prometheus-node-exporter" ];
  python3 = [ "python3" ];
  shadow = [ "passwd" "chage" "chfn" "chsh" "chpasswd" "useradd" "usermod" "userdel" "groupadd" "groupmod" "groupdel" "gpasswd" "newgrp" "sg" "nologin" "pwck" "grpck" "vipw" ];
  strace = [ "strace" ];
  sudo = [ "cvtsudoers" "sudo" "sudoedit" "visudo" ];
  thin-provisioning-tools = [ "pdata_tools" "thin_check" "thin_dump" "thin_repair" "cache_check" "cache_dump" "cache_repair" ];
  util-linux = [
    "agetty" "blkid" "blockdev" "chrt" "dmesg" "findmnt" "flock" "fsck" "fsfreeze" "fstrim" "getopt" "hardlink" "ionice" "ipcs" "ipcrm" "last" "logger" "login" "losetup"
    "lsblk" "lscpu" "lsipc" "lslocks" "lslogins" "lsmem" "lsns" "mcookie" "mkswap" "more" "mount" "mountpoint" "namei" "nsenter" "partx" "pivot_root"
    "prlimit" "rename" "renice" "rev" "rtcwake" "runuser" "script" "sfdisk" "setarch" "setpriv" "setsid" "setterm" "su" "sulogin" "swaplabel" "swapoff" "swapon" "switch_root"
    "taskset" "uclampset" "umount" "unshare" "wdctl" "whereis" "wipefs" "zramctl" "uuidgen" "column" "hexdump" "cal" "kill"
  ];
  xfsprogs = [ "mkfs.xfs" "fsck.xfs" "xfs_repair" "xfs_admin" "xfs_growfs" "xfs_info" "xfs_db" "xfs_io" "xfs_freeze" "xfs_quota" "xfs_scrub" ];
  xz = [ "xz" "unxz" "xzcat" ];
  zstd = [ "zstd" "unzstd" "zstdcat" ];
}
