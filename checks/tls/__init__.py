"""Suite: TLS, as a stranger on the network sees it."""
