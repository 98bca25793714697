"""House rules for NixOS hosts."""
