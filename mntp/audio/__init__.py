"""Audio: reading and writing files, log-mel spectrograms, phase recovery."""
