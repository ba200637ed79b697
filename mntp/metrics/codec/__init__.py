"""How well a codec gives back a clip: decoded samples against the original ones, a number for each clip."""
