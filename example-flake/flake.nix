{
  description = "Hosts that show what pytest-nixos tests: good ones, and a twin whose every line breaks one thing";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-25.11";

  outputs = { self, nixpkgs }:
    let
      host = module: nixpkgs.lib.nixosSystem {
        system = "x86_64-linux";
        modules = [ module ];
      };
      # What runs in the containers of nested.
      web.containers.web.path = self.nixosConfigurations.container-host.config.system.build.toplevel;
    in
    {
      devShells = import ./dev-shells.nix { inherit nixpkgs; };

      nixosConfigurations = {
        llm-host = host ./hosts/llm-host.nix;
        llm-host-bad = host ./hosts/llm-host-bad.nix;
        firewall-iptables = host ./hosts/firewall-iptables.nix;
        container-host = host ./hosts/container-host.nix;
        catalogue-good = host ./hosts/catalogue-good.nix;
        catalogue-bad = host ./hosts/catalogue-bad.nix;
        "edge.lab-1" = host ./hosts/edge.lab-1.nix;
        loader-host = host ./hosts/loader-host.nix;
        lxc-host = host ./hosts/lxc-host.nix;
        lxc-host-bad = host ./hosts/lxc-host-bad.nix;
        nested = host { imports = [ ./hosts/nested.nix web ]; };
        nested-bad = host { imports = [ ./hosts/nested-bad.nix web ]; };
        units-good = host ./hosts/units-good.nix;
        units-bad = host ./hosts/units-bad.nix;
        tiers = host ./hosts/tiers.nix;
        tiers-bad = host ./hosts/tiers-bad.nix;
        nats-1 = host ./hosts/nats-1.nix;
        nats-2 = host ./hosts/nats-2.nix;
        nats-3 = host ./hosts/nats-3.nix;
        nats-tls = host ./hosts/nats-tls.nix;
        nats-tls-bad = host ./hosts/nats-tls-bad.nix;
        nats-bad-1 = host ./hosts/nats-bad-1.nix;
        nats-bad-2 = host ./hosts/nats-bad-2.nix;
        rollback-bad = host ./hosts/rollback-bad.nix;
      };
    };
}
