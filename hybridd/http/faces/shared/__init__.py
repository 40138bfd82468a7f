"""What several faces need: one concept a module."""
