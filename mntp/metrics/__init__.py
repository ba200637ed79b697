"""What the scores compute: distances, divergences and intervals over what judge networks hear; and the networks."""
