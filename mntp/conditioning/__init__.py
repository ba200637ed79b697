"""Conditioning: the prompt as a sequence of embeddings, and classifier-free guidance."""
