"""Use cases, one per file, async. They know ports and domain only."""
