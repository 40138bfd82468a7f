"""hybridd: one local daemon that finds, loads and serves every language model on this machine."""

__version__ = "0.1.0"
