"""Which samples the pool offers: embeddings, clusters, the bandit, Quad, and its baselines."""
