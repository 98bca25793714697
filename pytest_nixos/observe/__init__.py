"""Observations: facts read from a running machine, many in one round trip.

A probe is a read-only bash fragment and its parser, one noun a file.
"""
