"""Floor 1: what the daemon decides. Pure: no I/O, no clock, no trio."""
