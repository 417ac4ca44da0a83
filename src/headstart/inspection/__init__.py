"""Looking at one run: what it gets wrong, how sure it is, where it looks. Its records alone, without torch."""
