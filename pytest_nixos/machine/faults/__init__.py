"""Faults that are brought about in a running machine, and undone."""
