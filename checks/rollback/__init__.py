"""Suite: rollback."""
