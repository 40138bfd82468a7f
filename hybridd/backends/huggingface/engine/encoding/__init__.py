"""Embedding models and cross-encoders."""
