"""Suite: hygiene of the flake, as Nix itself judges it."""
