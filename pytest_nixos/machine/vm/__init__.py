"""The ``vm`` backend: a host's own run script, or a clone of its snapshot."""
