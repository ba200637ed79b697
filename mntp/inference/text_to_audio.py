"""A trained model in five lines: captions in, waveforms out, at once or while they are being made."""

import copy
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from mntp.audio.log_mel import normalise
from mntp.batch import TextStates
from mntp.inference.checkpoint import find_checkpoint, load_system
from mntp.inference.model_folder import CONFIG, read_model_folder, write_model_folder
from mntp.inference.streaming import StreamingDecoder, Windows
from mntp.layers import matrices_to_bfloat16
from mntp.pretrained.precision import default_device
from mntp.registry import did_you_mean
from mntp.samplers import Decoding
from mntp.samplers.settings import Progress
from mntp.seeding import derive_seed
from mntp.systems import AudioSystem
from mntp.text import build_text_encoder
from mntp.tokenizers import build_tokenizer


class TextToAudio:
    """A trained system with the tokenizer and the text encoder that it was trained with.

        from mntp import TextToAudio

        model = TextToAudio.from_pretrained("runs/mine")
        (waveform,) = model.generate(["a dog barks"], seed=0)  # [samples] float32 at model.sample_rate

    Args:
        system: with its preprocessing attached, as `load_system` and `from_pretrained` give it.
        device: to draw tokens on; None takes the GPU where there is one.
        bfloat16: draw with matrix products in bfloat16 (noise, norms and tokens stay float32); None does so on a GPU.
            The model's own float32 weights are kept beside, for `save_pretrained`.

    Attributes:
        system: the system, in evaluation mode.
        bfloat16: whether products are in bfloat16.
        sample_rate: of all waveforms, in Hz.
        slice_seconds: what lengths are multiples of.
        max_seconds: the length of the clips that the model was trained on, and the longest that it makes.

    Raises:
        ValueError: the system has no preprocessing; or a part of it can't be built (see `build_tokenizer`).
    """

    def __init__(
        self, system: AudioSystem, device: torch.device | str | None = None, bfloat16: bool | None = None
    ) -> None:
        if system.preprocessing is None:
            raise ValueError("the model holds no tokenizer; it was not trained on prepared data")
        self.tokenizer = build_tokenizer(system.preprocessing["tokenizer"])
        self.text_encoder = build_text_encoder(system.preprocessing["text"])
        device = default_device() if device is None else torch.device(device)
        self.bfloat16 = device.type == "cuda" if bfloat16 is None else bfloat16
        self.system = system.eval()
        if self.bfloat16:
            self._drawing = copy.deepcopy(system).to(device)
            matrices_to_bfloat16(self._drawing)
        else:
            self._drawing = system.to(device)
        layout = self.tokenizer.layout
        self.sample_rate = layout.sample_rate
        self.slice_seconds = layout.frame_seconds
        self.max_seconds = layout.num_frames(system.num_tokens) * self.slice_seconds

    @classmethod
    def from_pretrained(
        cls, path: str | Path, device: torch.device | str | None = None, bfloat16: bool | None = None
    ) -> Self:
        """Load a trained model.

        Args:
            path: a folder of `save_pretrained`; a run's folder (its final or else newest checkpoint is taken); a
                checkpoint file; or a name on the hub (`owner/name`), looked up in its cache first.
            device: see the class.
            bfloat16: see the class.

        Raises:
            ValueError: there is no such model, or it is damaged, of another program or of a newer format.
        """
        local = Path(path).expanduser()
        if local.exists() and not (local / CONFIG).is_file():
            return cls(load_system(find_checkpoint(local)), device, bfloat16)
        return cls(read_model_folder(str(path)), device, bfloat16)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `config.json` and `model.safetensors`, from which `from_pretrained` makes this model's equal.

        Weights are kept bit for bit. Public models of the preprocessing (AudioLDM, CLAP, FLAN-T5) are not copied: their
        path or name and their hash are kept, and compared again.

        Args:
            folder: new, empty, or a saved model, which is replaced.

        Raises:
            ValueError: the folder holds other files, or the system was built in Python from objects.
            OSError: the disk is full or the folder can't be written; what was there before is kept.
        """
        write_model_folder(self.system, Path(folder).expanduser())

    def generate(
        self,
        captions: Sequence[str],
        seed: int | Sequence[int] = 0,
        batch_size: int = 8,
        seconds: float | None = None,
        continue_from: Tensor | None = None,
        decoding: Decoding | None = None,
        progress: Progress | None = None,
        **overrides: Any,
    ) -> list[Tensor]:
        """Make one waveform for each caption.

        A clip is a function of its caption and seed: that it is made in a batch with others moves its last bits and no
        more. A shorter clip has the first tokens of the longer one.

        Args:
            captions: what should be heard.
            seed: one for all captions (`assign_seeds` says what becomes of those that come twice), or a list of one for
                each.
            batch_size: captions at once.
            seconds: length of the clips, a multiple of `slice_seconds`; None is `max_seconds`. The causal systems draw
                no more tokens than that takes; AudioMAR draws all, and the rest is cut off.
            continue_from: waveform [samples], or one for each caption [B, samples], at `sample_rate`: the clips begin
                with it (as the tokenizer renders it, cut at its end to whole frames, its peak at 0.5).
            decoding: how tokens are drawn; None is the model's own way.
            progress: called with (tokens drawn, tokens in all), over all captions.
            overrides: single settings of `decoding`; see there.

        Returns:
            For each caption a waveform [samples], float32 on the CPU; of a well trained model about within +-1.

        Raises:
            ValueError: an argument is out of range or of the wrong number, or a caption has no words.
        """
        captions = [captions] if isinstance(captions, str) else list(captions)
        if batch_size < 1:
            raise ValueError(f"batch_size: got {batch_size}, expected at least 1")
        seeds = assign_seeds(captions, seed) if isinstance(seed, int) else list(seed)
        if len(seeds) != len(captions):
            raise ValueError(
                f"seed: got {len(seeds)} for {len(captions)} captions; expected one for all, or one for each"
            )
        num_tokens, prefix = self._num_tokens(seconds), self._prefix(continue_from, len(captions), seconds)
        system = self._system(self.decoding(decoding, **overrides))
        total, waveforms = num_tokens * len(captions), []
        for first in range(0, len(captions), batch_size):
            chosen = slice(first, first + batch_size)
            size = len(captions[chosen])

            def advance(drawn: int, in_all: int, first: int = first, size: int = size) -> None:
                if progress is not None:
                    progress(num_tokens * first + num_tokens * size * drawn // in_all, total)

            tokens = system.generate(
                self._text(captions[chosen]),
                _clip_seeds(captions[chosen], seeds[chosen]),
                progress=advance,
                prefix=None if prefix is None else prefix[chosen],
                num_tokens=num_tokens,
            )
            waveforms += list(self.tokenizer.decode(tokens.cpu()))
        return waveforms

    def stream(
        self,
        caption: str,
        seed: int = 0,
        seconds: float | None = None,
        continue_from: Tensor | None = None,
        windows: Windows | None = None,
        decoding: Decoding | None = None,
        **overrides: Any,
    ) -> Iterator[Tensor]:
        """Make one waveform and hand out its pieces as soon as they are known.

        Joined they are what `generate` makes of the same arguments, but for what overlapping windows cost (see
        `StreamingDecoder`). AudioMAR draws its tokens in random order: its pieces come late.

        Args:
            caption: what should be heard.
            seed: of the clip, as in `generate`.
            seconds: as in `generate`.
            continue_from: as in `generate`; its sound comes first.
            windows: how the tokenizer's windows overlap; None is `Windows()`.
            decoding: as in `generate`.
            overrides: as in `generate`.

        Returns:
            An iterator of waveforms [samples], float32 on the CPU.

        Raises:
            ValueError: as `generate`, and at once.
        """
        num_tokens, prefix = self._num_tokens(seconds), self._prefix(continue_from, 1, seconds)
        system, text = self._system(self.decoding(decoding, **overrides)), self._text([caption])
        decoder = StreamingDecoder(self.tokenizer, self.tokenizer.layout.num_frames(num_tokens), windows or Windows())
        states = system.stream(text, _clip_seeds([caption], [seed]), prefix=prefix, num_tokens=num_tokens)
        pieces = (decoder.push(state.tokens, state.leading) for state in states)
        return (piece[0] for piece in pieces if piece is not None)

    def decoding(self, base: Decoding | None = None, **overrides: Any) -> Decoding:
        """How tokens are drawn: in the model's own way, or as `base` says, with single settings changed.

            model.decoding(sampling={"num_steps": 25, "solver": "ddim"}, guidance_scale=3, tokens_per_call=4)

        Args:
            base: None is the model's own way.
            overrides: settings by name. Of `sampling` and `guidance`, a dictionary changes the settings that it names
                and keeps the others. `guidance_scale` is the scale of the guidance.

        Raises:
            ValueError: there is no such setting, or the model can't do it.
        """
        own = self.system.decoding
        chosen = own if base is None else base
        if isinstance(own, type(chosen)):  # a plain Decoding says nothing of what only this system's own has
            chosen = replace(own, **{field.name: getattr(chosen, field.name) for field in fields(chosen)})
        if not isinstance(chosen, type(own)):
            raise ValueError(
                f"decoding: got {type(chosen).__name__}, expected {type(own).__name__}, which "
                f"{type(self.system).__name__} decodes by"
            )
        known = [*(field.name for field in fields(chosen)), "guidance_scale"]
        if unknown := sorted(overrides.keys() - set(known)):
            raise ValueError(
                f"{unknown[0]} is not a setting of decoding; known: {', '.join(known)}{did_you_mean(unknown[0], known)}"
            )
        if isinstance(sampling := overrides.get("sampling"), dict):
            before = self.system.check_decoding(chosen).head_sampling
            overrides["sampling"] = {**asdict(before), **sampling}
        if isinstance(guidance := overrides.get("guidance"), dict):
            try:
                overrides["guidance"] = replace(chosen.guidance, **guidance)
            except TypeError as error:
                raise ValueError(f"decoding.guidance: {error}") from error
        if "guidance_scale" in overrides:
            guidance = overrides.get("guidance", chosen.guidance)
            overrides["guidance"] = replace(guidance, scale=float(overrides.pop("guidance_scale")))
        return self.system.check_decoding(replace(chosen, **overrides))

    def check(self, num_clips: int, seconds: float | None = None, continue_from: Tensor | None = None) -> None:
        """Refuse, before the first of many clips is made, what `generate` would refuse of these arguments.

        Raises:
            ValueError: as in `generate`.
        """
        self._prefix(continue_from, num_clips, seconds)
        self._num_tokens(seconds)

    def _system(self, decoding: Decoding) -> AudioSystem:
        """The system, decoding in another way: a shallow copy, so that two streams may decode in two ways."""
        system = copy.copy(self._drawing)
        system.decoding = decoding
        return system

    def _num_tokens(self, seconds: float | None) -> int:
        """Tokens of a clip of `seconds`."""
        if seconds is None:
            return self.system.num_tokens
        slices = round(seconds / self.slice_seconds) if math.isfinite(seconds) else 0
        if not 1 <= slices <= round(self.max_seconds / self.slice_seconds):
            raise ValueError(
                f"seconds: got {seconds:g}, expected {self.slice_seconds:g} to {self.max_seconds:g}, the length of the "
                "clips that the model was trained on"
            )
        if abs(slices * self.slice_seconds - seconds) > 0.5 / self.sample_rate:
            below = int(seconds / self.slice_seconds) * self.slice_seconds
            raise ValueError(
                f"seconds: {seconds:g} is no multiple of {self.slice_seconds:g}, the tokenizer's time slice; nearest "
                f"are {below:g} and {below + self.slice_seconds:g}"
            )
        return slices * self.tokenizer.layout.tokens_per_frame

    def _prefix(self, waveform: Tensor | None, num_clips: int, seconds: float | None) -> Tensor | None:
        """Tokens [num_clips, n, D] of a waveform to go on from."""
        if waveform is None:
            return None
        given = torch.as_tensor(waveform, dtype=torch.float32).cpu()
        if given.dim() not in (1, 2) or (given.dim() == 2 and len(given) != num_clips) or not given.isfinite().all():
            raise ValueError(
                f"continue_from: got a waveform of shape {tuple(given.shape)}; expected [samples], or "
                f"[{num_clips}, samples] for the {num_clips} captions, all finite"
            )
        layout = self.tokenizer.layout
        samples = given.shape[-1] // layout.samples_per_frame * layout.samples_per_frame
        longest = layout.num_frames(self._num_tokens(seconds)) * self.slice_seconds
        if not 0 < samples < longest * self.sample_rate:
            raise ValueError(
                f"continue_from: got {given.shape[-1] / self.sample_rate:g} s at {self.sample_rate} Hz, expected "
                f"{self.slice_seconds:g} s or more, and less than the clip's {longest:g}: cut it"
            )
        with torch.no_grad():
            tokens = self.tokenizer.encode(normalise(given.reshape(-1, given.shape[-1])[:, :samples]))
        return tokens.expand(num_clips, -1, -1).to(self._drawing.device)

    def _text(self, captions: list[str]) -> dict[str, TextStates]:
        streams = self.text_encoder.encode(captions)
        return {name: TextStates.pad(states, self._drawing.device) for name, states in streams.items()}


def assign_seeds(captions: Sequence[str], seed: int) -> list[int]:
    """A seed for each caption: the first time `seed` itself, another one each time that the caption comes again."""
    seen: Counter[str] = Counter()
    seeds = []
    for caption in captions:
        seeds.append(derive_seed(seed, "again", seen[caption]) if seen[caption] else seed)
        seen[caption] += 1
    return seeds


def _clip_seeds(captions: Sequence[str], seeds: Sequence[int]) -> list[int]:
    """What the noise of each clip is drawn from."""
    return [derive_seed("generate", seed, caption) for seed, caption in zip(seeds, captions, strict=True)]
