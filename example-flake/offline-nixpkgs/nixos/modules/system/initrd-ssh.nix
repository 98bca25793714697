# The network of the scripted stage 1, and the sshd there that takes passphrases: as system/boot/initrd-network.nix and initrd-ssh.nix
# have them, without the kernel's parameter ip=.
{ config, lib, pkgs, ... }:
let
  inherit (lib) mkOption types;
  cfg = config.boot.initrd.network;
  ssh = cfg.ssh;
  shell = if ssh.shell == null then "/bin/ash" else ssh.shell;
  lines = mkOption { type = types.lines; default = ""; };
  flag = default: mkOption { type = types.bool; inherit default; };

  dhcpScript = pkgs.writeText "udhcpc-script" ''
    #!/bin/sh
    if [ "$1" = bound ]; then
      ip address add "$ip/$mask" dev "$interface"
      if [ -n "$router" ]; then
        ip route add "$router" dev "$interface"
        ip route add default via "$router" dev "$interface"
      fi
    fi
  '';

  keyPath = path:
    if builtins.isString path then path
    else let name = builtins.baseNameOf path; in builtins.unsafeDiscardStringContext ("/etc/ssh/" + builtins.substring 1 (builtins.stringLength name) name);

  sshdConfig = pkgs.writeText "initrd-sshd_config" ''
    UsePAM no
    Port ${toString ssh.port}
    PasswordAuthentication no
    AuthorizedKeysFile %h/.ssh/authorized_keys %h/.ssh/authorized_keys2 /etc/ssh/authorized_keys.d/%u
    KbdInteractiveAuthentication no
    ${lib.concatMapStrings (path: "HostKey ${keyPath path}\n") ssh.hostKeys}
    UseDNS no
    ${ssh.extraConfig}
  '';
in
{
  options.boot.initrd.network = {
    udhcpc.enable = flag config.networking.useDHCP;
    udhcpc.extraArgs = mkOption { type = types.listOf types.str; default = [ ]; };
    flushBeforeStage2 = flag true;
    postCommands = lines;
    ssh = {
      enable = flag false;
      port = mkOption { type = types.port; default = 22; };
      shell = mkOption { type = types.nullOr types.str; default = null; };
      hostKeys = mkOption { type = types.listOf (types.either types.str types.path); default = [ ]; };
      ignoreEmptyHostKeys = flag false;
      authorizedKeys = mkOption { type = types.listOf types.str; default = [ ]; };
      authorizedKeyFiles = mkOption { type = types.listOf types.path; default = [ ]; };
      extraConfig = lines;
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = lib.optionals ssh.enable [
      { assertion = ssh.authorizedKeys != [ ] || ssh.authorizedKeyFiles != [ ]; message = "You should specify at least one authorized key for initrd SSH"; }
      { assertion = ssh.hostKeys != [ ] || ssh.ignoreEmptyHostKeys; message = "You must now pre-generate the host keys for initrd SSH."; }
    ];
    boot.initrd.kernelModules = [ "af_packet" ];
    boot.initrd.extraUtilsCommands = ''
      for name in ash head ip sed seq stty udhcpc; do ln -sf busybox $root/bin/$name; done
      cp ${dhcpScript} $root/bin/udhcpc-script
      chmod +x $root/bin/udhcpc-script
    '' + lib.optionalString ssh.enable ''
      copy_bin_and_libs ${pkgs.openssh}/bin/sshd
      copy_bin_and_libs ${pkgs.procps}/bin/pkill
      mkdir -p $root/usr/lib/openssh $root/etc/ssh
      for name in sshd-session sshd-auth; do
        copy_bin_and_libs $debian/usr/lib/openssh/$name
        ln -s /bin/$name $root/usr/lib/openssh/$name
      done
      cp ${sshdConfig} $root/etc/ssh/sshd_config
    '';
    boot.initrd.preLVMCommands = lib.mkBefore (lib.optionalString cfg.udhcpc.enable ''
      ifaces=$(ls /sys/class/net/ | grep -v ^lo$)
      for iface in $ifaces; do
        echo "bringing up network interface $iface..."
        ip link set dev "$iface" up
      done
      for iface in $ifaces; do
        echo "acquiring IP address via DHCP on $iface..."
        udhcpc --quit --now -i $iface -O staticroutes --script /bin/udhcpc-script ${toString cfg.udhcpc.extraArgs}
      done
    '' + cfg.postCommands);
    boot.initrd.network.postCommands = lib.mkIf ssh.enable ''
      mount -t devpts -o mode=0620,ptmxmode=0666 devpts /dev/pts
      echo '${shell}' > /etc/shells
      echo 'root:x:0:0:root:/root:${shell}' > /etc/passwd
      echo 'sshd:x:1:1:sshd:/var/empty:/bin/nologin' >> /etc/passwd
      echo 'passwd: files' > /etc/nsswitch.conf
      mkdir -p /var/log /var/empty /run/sshd /root/.ssh
      touch /var/log/lastlog
      echo "export PATH=$PATH" >> /etc/profile
      ${lib.concatMapStrings (key: "echo ${lib.escapeShellArg key} >> /root/.ssh/authorized_keys\n") (ssh.authorizedKeys ++ map builtins.readFile ssh.authorizedKeyFiles)}
      ${lib.concatMapStrings (path: ''chmod 0600 "${keyPath path}"'' + "\n") ssh.hostKeys}
      /bin/sshd -e
    '';
    boot.initrd.postMountCommands = lib.mkMerge [
      (lib.mkIf ssh.enable "pkill -x sshd")
      (lib.mkIf cfg.flushBeforeStage2 ''
        for iface in $ifaces; do
          ip address flush dev "$iface"
          ip link set dev "$iface" down
        done
      '')
    ];
    boot.initrd.secrets = lib.listToAttrs (map (path: lib.nameValuePair (keyPath path) path) ssh.hostKeys);
  };
}
