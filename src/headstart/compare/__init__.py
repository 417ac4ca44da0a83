"""Comparing runs. Nothing in here imports torch: a thousand runs are compared in a moment."""
