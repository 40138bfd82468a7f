"""What lasts while the daemon runs: settings in force, events, jobs, saved state."""
