"""What every engine shares: requests, prompts, chat templates, output. Workers only."""
