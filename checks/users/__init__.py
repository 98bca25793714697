"""Users: what a declared account can do."""
