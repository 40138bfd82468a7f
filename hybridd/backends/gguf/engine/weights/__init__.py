"""Loading: the library, the model, its vocabulary, what load options mean for it."""
