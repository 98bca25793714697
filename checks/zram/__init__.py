"""Suite: zram."""
