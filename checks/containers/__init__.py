"""Suite: NixOS containers on a host."""
