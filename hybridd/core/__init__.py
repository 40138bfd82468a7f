"""What the daemon decides. Pure: no I/O, no clock, no trio."""
