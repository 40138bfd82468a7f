"""Floor 5: JSON-RPC over the Unix socket."""
