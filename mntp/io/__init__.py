"""Files: atomic writes, locks, fingerprints, storage, JSON lines, progress."""
