"""transformers in a worker. Its rooms: compat, encoding, forward, tokens, weights."""
