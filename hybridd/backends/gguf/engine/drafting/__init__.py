"""A small model that proposes tokens, and how many it should."""
