"""Prompt streams -> the P prompt positions in front of the tokens (paper section 3.1; guidance: section 3.3)."""

import torch
from torch import Tensor, nn

from mntp.batch import TextStates, TextStream
from mntp.layers import free_embedding, xavier_linear


class PromptEncoder(nn.Module):
    """Projects each text stream to the model width and concatenates the streams.

    A caption shorter than a stream's slots leaves slots filled by one learned padding vector; they stay visible, so
    that prompt length and positions never change. For guidance the whole prompt is replaced by a learned fake
    prompt of the same length.

    Args:
        streams: the streams in use, by name, in the order of their positions.
        dim: C, model width.
    """

    def __init__(self, streams: dict[str, TextStream], dim: int) -> None:
        super().__init__()
        if not streams:
            raise ValueError("a prompt needs at least one text stream, got none")
        self.streams = dict(streams)
        self.length = sum(stream.max_length for stream in streams.values())
        self.proj = nn.ModuleDict({name: xavier_linear(stream.dim, dim) for name, stream in streams.items()})
        self.padding = free_embedding(dim)
        self.fake_prompt = free_embedding(self.length, dim)

    def forward(self, text: dict[str, TextStates], drop: Tensor | None = None) -> Tensor:
        """Prompt positions of a batch.

        Args:
            text: states of at least the streams in use; states beyond a stream's slots are cut.
            drop: [B] bool, True where the fake prompt takes the prompt's place.

        Returns:
            [B, P, C].

        Raises:
            ValueError: a stream is missing or has another width.
        """
        prompt = torch.cat([self._stream(name, stream, text) for name, stream in self.streams.items()], dim=1)
        if drop is None:
            return prompt
        return torch.where(drop[:, None, None], self.fake_prompt, prompt)

    def fake(self, batch: int) -> Tensor:
        """The fake prompt for each clip, [B, P, C]."""
        return self.fake_prompt.expand(batch, -1, -1)

    def _stream(self, name: str, stream: TextStream, text: dict[str, TextStates]) -> Tensor:
        if name not in text:
            raise ValueError(f"prompt: the model reads text stream '{name}', the data has {sorted(text)}")
        states = text[name].states[:, : stream.max_length]
        if states.shape[-1] != stream.dim:
            raise ValueError(
                f"prompt: stream '{name}' has {states.shape[-1]} values a vector, the model expects {stream.dim}"
            )
        x = self.proj[name](states)
        real = torch.arange(x.shape[1], device=x.device) < text[name].lengths[:, None]
        x = torch.where(real[..., None], x, self.padding)
        rest = self.padding.expand(x.shape[0], stream.max_length - x.shape[1], -1)
        return torch.cat([x, rest], dim=1)
