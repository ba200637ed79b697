"""Inference: checkpoints, exported model folders, and text to audio."""
