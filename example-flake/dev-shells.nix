# What people who work on these hosts have at hand: `nix develop`.
{ nixpkgs }:
let
  shells = pkgs: {
    default = pkgs.mkShell {
      packages = [ pkgs.jq pkgs.openssh pkgs.nftables ];
      NOTES_PORT = "8080";
      NATS_URL = "nats://127.0.0.1:4222";
      shellHook = ''
        export NOTES_URL="http://127.0.0.1:$NOTES_PORT"
      '';
    };
  };
in
nixpkgs.lib.genAttrs [ "x86_64-linux" ] (system: shells nixpkgs.legacyPackages.${system})
