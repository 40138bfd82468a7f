"""The machine: sockets, GPUs, memory, the journal. Each module knows one thing of it only."""
