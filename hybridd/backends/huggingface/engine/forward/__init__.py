"""Forward passes: sessions, attention, the KV cache, adapters in force."""
