"""The store: prepared tokens and text embeddings in shards on disk."""
