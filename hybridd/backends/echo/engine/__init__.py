"""The echo format in a worker."""
