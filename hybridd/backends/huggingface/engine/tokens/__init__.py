"""Texts and pictures to tokens, logits to a token, tokens to bytes."""
