"""Clusters: several machines on one private network."""
