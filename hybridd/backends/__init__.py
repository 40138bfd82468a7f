"""One folder a format; at its top what the daemon may import, in its `engine` what workers may."""
