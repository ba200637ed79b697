"""Command line, configs and the ablation runner."""
