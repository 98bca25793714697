"""Snapshots: a booted VM saved under a key, and clones made from it."""
