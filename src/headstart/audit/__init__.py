"""What a set of images really holds: one look at each, copies among them, and a report before any training."""
