"""What the scores compute: distances, divergences and intervals over embeddings of networks; and the networks."""
