"""Suite: ssh."""
