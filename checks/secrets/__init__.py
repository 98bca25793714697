"""Secrets: there, in time, closed to others, and replaced by a switch."""
