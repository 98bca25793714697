"""The process that wakes a machine for a later run, stops it, and owns it until that run is over."""
