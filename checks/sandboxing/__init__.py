"""Suite: sandboxing."""
