# Part of flake.nix, as `python -m pytest_nixos ci hydra` writes it: a jobset of type flake builds hydraJobs. Reports are build
# products; a host that has not changed is not run again. The queue runner needs a machine with the features kvm and nixos-test.
{
  outputs = { self, nixpkgs, pytest-nixos }: {
    nixosConfigurations = { /* as you have them */ };
    checks = pytest-nixos.lib.checkFlake self { };
    hydraJobs = { inherit (self) checks; };
  };
}
