"""Units: what the host declares is what systemd loaded, started and still runs."""
