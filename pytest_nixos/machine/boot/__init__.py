"""A boot under way: what it tells, when it has settled, and why it failed."""
