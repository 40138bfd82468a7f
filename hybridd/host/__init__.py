"""Floor 3: trio's adapters to the machine. Each module knows one thing of the machine only."""
