"""The KV cache's cells: slots, passes over them, saved states, the llama.cpp context."""
