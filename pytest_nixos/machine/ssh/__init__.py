"""The ``ssh`` backend: a live host, reached by OpenSSH and never changed."""
