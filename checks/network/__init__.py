"""Suite network: what systemd-networkd made of what it was given."""
