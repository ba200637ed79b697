"""Decoding without any of the engine's savings: what it is held against."""

import copy
import dataclasses
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from mntp.heads import Head
from mntp.heads.denoiser import Denoise, Denoiser, MLPDenoiser
from mntp.samplers import ClipNoise, DecodingState, TokenDrawer
from mntp.systems import AudioNTP


class PlainDenoiser(MLPDenoiser):
    """Works everything out anew at each step."""

    def at_times(self, times: Sequence[float], z: Tensor) -> Denoise:
        """As Denoiser."""
        return Denoiser.at_times(self, times, z)


def plain_head(head: Head) -> Head:
    """A copy of a head whose network shares nothing between steps; one without such a network as it is."""
    if not isinstance(getattr(head, "net", None), MLPDenoiser):
        return head
    plain = copy.deepcopy(head)
    plain.get_submodule("net").__class__ = PlainDenoiser
    return plain


@torch.no_grad()
def decode_plain(
    system: AudioNTP, head: Head, prompt: Tensor, fake_prompt: Tensor, noise: ClipNoise, known: Tensor, num_tokens: int
) -> Iterator[DecodingState]:
    """Draw one token after the other, each by a pass over prompt and all tokens so far; as `system.decode`.

    Args:
        system: gives the backbone, the target positions and the settings of decoding.
        head: see `plain_head`.
        prompt: [B, P, C].
        fake_prompt: [B, P, C].
        noise: the draws.
        known: [B, m, D].
        num_tokens: tokens wanted.

    Yields:
        What is drawn, after each token.
    """
    drawer = TokenDrawer(head, dataclasses.replace(system.decoding, cuda_graphs=False), noise, system.num_tokens)
    prompts = drawer.branches(prompt, fake_prompt)
    tokens = torch.cat([known, known.new_zeros(len(known), num_tokens - known.shape[1], known.shape[2])], dim=1)
    for position in range(known.shape[1], num_tokens):
        places = torch.arange(position + 1, device=prompt.device).expand(len(prompt), -1)
        z = [
            system.backbone(branch, tokens[:, :position], places[:, :-1], system.target_embedding(places))[:, -1:]
            for branch in prompts.split(len(prompt))
        ]
        tokens[:, position : position + 1] = drawer.draw(torch.cat(z), position)
        yield DecodingState(tokens, position + 1, position + 1, num_tokens)
