"""The ablation runner."""
