"""What load options name besides the model itself: builds, adapters, draft models."""
