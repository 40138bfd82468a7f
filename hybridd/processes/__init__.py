"""Child processes: templates, the workers forked from them, and reaping what is left of any."""
