"""Caption tables: rows of CSV and JSON files, published corpora, captions by file name."""
