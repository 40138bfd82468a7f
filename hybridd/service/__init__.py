"""Floor 4: the running daemon. Knows no transport."""
