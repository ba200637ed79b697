"""The matrix file: axes, rows and scales, checked and expanded to cells."""
