"""`python -m experiments fit ...`, for machines where another package owns the name `lightning`."""

from experiments.config.lightning_cli import main

main()
