"""Suite: sysctl."""
