"""The fence: all that leans on what torch, transformers and peft do not promise."""
