"""The pytest plugin: options, collection, fixtures, and the run from a host ref to its findings.
Only this room imports pytest.
"""
