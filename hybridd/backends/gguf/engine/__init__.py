"""llama.cpp in a worker: the step, and encoding. Its rooms: cells, drafting, tokens, weights."""
