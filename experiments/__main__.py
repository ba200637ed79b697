"""`python -m experiments fit ...`, for machines where another package owns the name `lightning`."""

from experiments.cli import main

main()
