# The kernel: modules that nobody here needs, a record of who changes accounts, and a clock that is compared every minute.
{ lib, ... }:
{
  boot.extraModprobeConfig = lib.concatMapStrings (module: "install ${module} /run/current-system/sw/bin/false\n")
    [ "cramfs" "freevxfs" "hfs" "hfsplus" "jffs2" "udf" ];
  security.audit.enable = true;
  security.auditd.enable = true;
  security.audit.rules = [ "-w /etc/passwd -p wa -k identity" "-w /etc/shadow -p wa -k identity" ];
  services.timesyncd.extraConfig = "PollIntervalMaxSec=60";
}
