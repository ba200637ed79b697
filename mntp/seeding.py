"""Seeds that are a function of what they are for, so that a resumed run draws what the uninterrupted one drew."""

import hashlib

import torch


def derive_seed(*keys: int | str) -> int:
    """Hash `keys` (for example a seed, a purpose, a step, a rank) to a seed in [0, 2^63)."""
    digest = hashlib.sha256(repr(keys).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def make_generator(*keys: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator on `device` that is a function of `keys` alone."""
    return torch.Generator(device).manual_seed(derive_seed(*keys))
