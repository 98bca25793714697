"""Suite: boot."""
