# The twin of nats-tls.
{ lib, ... }:
{
  imports = [ ./nats-tls.nix ];
  networking.hostName = "nats-tls-bad";
  # breaks: TLS-005 (it speaks TLS, and with everybody)
  services.nats.settings.tls.verify = lib.mkForce false;
}
