"""The child process that holds one model; no trio, and nothing of the daemon's other rooms."""
