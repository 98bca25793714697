"""Machines: running instances of a host config, and how they are started and spoken to."""
