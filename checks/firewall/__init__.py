"""Suite: firewall."""
