# A small host that switches once and never well again: its activation assumes that it runs on a fresh system.
{
  imports = [ ./edge.lab-1.nix ];
  networking.hostName = "rollback-bad";

  # breaks: RBK-001 and RBK-002 (each activation after the first fails)
  system.activationScripts.licence.text = ''
    mkdir /var/lib/licence
  '';
}
