"""Which samples lower the reference loss: factors, directions, scores, and their trust."""
