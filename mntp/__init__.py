"""Continuous-token audio language models: AudioNTP, AudioMNTP, AudioMAR (arXiv 2507.09834)."""
