"""The networks whose embeddings the scores compare."""
