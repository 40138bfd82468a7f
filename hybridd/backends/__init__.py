"""Floor 2: one folder per model format, each of the same shape (see `api`)."""
