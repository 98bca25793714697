"""Runs under pytest-xdist: which worker has which tests, and what workers send back."""
