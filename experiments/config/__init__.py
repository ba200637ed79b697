"""Configs: LightningCLI, resolving a config to plain values, errors of one line."""
