"""The evaluated config of a host: what it declares, as typed values, and where each was set."""
