"""Test secrets: values of the kinds that a host declares, encrypted as its own modules expect
them.
"""
