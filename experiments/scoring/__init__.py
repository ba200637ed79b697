"""Scores of generated sound: embeddings, protocols, intervals, the embedded judge."""
