"""A face of the daemon: JSON-RPC over the Unix socket."""
