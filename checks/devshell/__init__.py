"""Suite: development shells of the flake."""
