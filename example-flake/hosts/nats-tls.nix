# NATS that speaks TLS, and with clients that have a certificate only.
{ lib, pkgs, ... }:
{
  imports = [ ../modules/base.nix ];
  networking.hostName = lib.mkDefault "nats-tls";
  networking.nftables.enable = true;
  networking.firewall.allowedTCPPorts = [ 4222 ];

  # An authority that nobody else trusts; it and the server's key are made on the host and stay there.
  systemd.services.nats-certificates = {
    description = "Certificates of NATS";
    wantedBy = [ "nats.service" ];
    before = [ "nats.service" ];
    path = [ pkgs.openssl ];
    unitConfig.ConditionPathExists = "!/var/lib/nats-tls/server.pem";
    serviceConfig = {
      Type = "oneshot";
      User = "nats";
      Group = "nats";
      StateDirectory = "nats-tls";
      StateDirectoryMode = "0750";
      UMask = "0077";
      WorkingDirectory = "/var/lib/nats-tls";
    };
    script = ''
      set -e
      export OPENSSL_CONF=/dev/null
      openssl ecparam -name prime256v1 -genkey -noout -out ca.key
      openssl req -x509 -new -key ca.key -subj "/CN=example authority" -days 30 -out ca.pem -addext basicConstraints=critical,CA:TRUE
      openssl ecparam -name prime256v1 -genkey -noout -out server.key
      openssl req -new -key server.key -subj "/CN=nats" -out server.csr
      openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -out server.pem
      rm ca.key server.csr
    '';
  };

  services.nats = {
    enable = true;
    # The files do not exist where the system is built.
    validateConfig = false;
    settings.tls = {
      cert_file = "/var/lib/nats-tls/server.pem";
      key_file = "/var/lib/nats-tls/server.key";
      ca_file = "/var/lib/nats-tls/ca.pem";
      verify = true;
    };
  };
}
