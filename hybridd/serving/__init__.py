"""Models at work: which are in memory, what runs on them, what memory they hold. No transport."""
