"""Building: the store of this machine, its database, and the systems that it can build for."""
