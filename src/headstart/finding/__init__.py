"""What a run should be given before it is started: a learning rate, a batch size, and memory enough."""
