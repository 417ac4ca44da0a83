"""What to transfer from: scores that rank backbones before training, and how far they can be trusted."""
