"""The terminal's summary: causes first, at most a screen of it."""
