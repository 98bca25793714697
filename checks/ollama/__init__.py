"""Suite: ollama."""
