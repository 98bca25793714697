"""What failures of Nix mean to the user, and whose they are."""
