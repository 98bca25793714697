{
  description = "The bad twin of a flake: each statement breaks what its comment names, and nothing else";

  # breaks: FLK-002 (flake.lock was made for another branch)
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-25.11";

  outputs = { self, nixpkgs }:
    let
      system = "x86_64-linux";
      pkgs = nixpkgs.legacyPackages.${system};
    in
    {
      nixosConfigurations.careless = nixpkgs.lib.nixosSystem {
        inherit system;
        modules = [
          {
            boot.isContainer = true;
            networking.hostName = "careless";
            system.stateVersion = "24.05";
            # breaks: FLK-011 (another file with each build)
            environment.etc."built-at".source = pkgs.runCommand "built-at" { } "date +%s.%N > $out";
          }
        ];
      };

      # breaks: FLK-007 (it does not evaluate)
      packages.${system}.report = throw "the report has moved to another repository";

      devShells.${system} = {
        default = pkgs.mkShell {
          packages = [ pkgs.jq pkgs.openssh ];
          NATS_URL = "nats://127.0.0.1:4222";
          shellHook = ''
            # breaks: DEV-002 (another jq comes first)
            mkdir -p "$TMPDIR/own"; ln -sf /bin/true "$TMPDIR/own/jq"; export PATH="$TMPDIR/own:$PATH"
            # breaks: DEV-003 (programs of the host)
            export PATH="$PATH:/usr/local/bin:/usr/bin"
            # breaks: DEV-004 (files in the project and at home, and a server that stays)
            echo started > .started
            echo yes > "$HOME/.seen"
            sleep 300 &
            # breaks: DEV-005 (another address than the declared one)
            export NATS_URL=nats://10.0.0.1:4222
          '';
        };

        # breaks: DEV-001 (a tool of it cannot be built)
        broken = pkgs.mkShell { packages = [ (pkgs.runCommand "linter" { } "echo 'no such thing' >&2; exit 1") ]; };
      };

      # breaks: DEV-008 (the second system has one of the two)
      devShells.aarch64-linux.default = self.devShells.${system}.default;
    };
}
