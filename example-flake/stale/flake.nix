{
  description = "A flake that is kept carelessly: what is wrong with it shows in its lock file and its sources, before any host starts";

  # breaks: FLK-005 [flake-lock] (somebody's fork) and FLK-003 (a branch that nobody mends any more)
  inputs.nixpkgs.url = "github:somebody/nixpkgs/nixos-22.05";
  # breaks: FLK-006 [flake-lock] (without inputs.nixpkgs.follows it brings a nixpkgs of its own)
  inputs.tools.url = "github:somebody/tools";
  # FLK-004 [flake-lock]: flake.lock is years old.

  outputs = { self, nixpkgs, tools }: {
    nixosConfigurations.stale = nixpkgs.lib.nixosSystem {
      system = "x86_64-linux";
      modules = [ ./host.nix ];
    };
  };
}
