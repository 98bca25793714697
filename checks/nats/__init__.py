"""Suite: NATS clusters on a network of their own."""
