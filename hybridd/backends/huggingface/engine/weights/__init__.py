"""Loading: files to a model in memory, on its devices, in the processor's order."""
