"""The five scores of the paper as the AudioLDM evaluation toolkit defines them, and KID.

FD, KL, IS and KID over Cnn14 at 16 kHz, FAD over VGGish, CLAP by LAION's music_speech_audioset checkpoint. The
definitions follow github haoheliu/audioldm_eval at 8dc07ee; CLAP follows its branch passt_replace_panns without the
random replacement of embeddings there, which biases the mean and changes from run to run.
"""

import numpy as np
import torch
from torch import Tensor

from mntp.metrics.divergence import kl_divergences
from mntp.metrics.kernel import kernel_distance
from mntp.metrics.networks.base import AudioNetwork
from mntp.metrics.networks.clap import ClapScorer
from mntp.metrics.networks.cnn14 import Cnn14
from mntp.metrics.networks.vggish import VGGish
from mntp.metrics.score_sets import Heard, Progress, Score, ScoreSet, frechet, inception, mean_of, similarity

KL_EPSILON = 1e-6
NUM_SPLITS = 10
ORDER_SEED = 2020


class ToolkitScores(ScoreSet):
    """`fd`, `kl`, `is`, `kid` (Cnn14), `fad` (VGGish), and `clap` where a CLAP network is given.

    `fd` and `fad` are squared feature units, `kl` nats of the softmax over 527 classes, reference || generated, `is`
    lies between 1 and 527, `clap` is a cosine. `kid` is not reported by the paper.
    """

    kind = "audioldm"
    scores = ("fd", "fad", "kl", "is", "kid", "clap")
    text_scores = ("clap",)
    num_slow = 2

    def __init__(self, cnn14: Cnn14, vggish: VGGish, clap: ClapScorer | None) -> None:
        self.cnn14, self.vggish, self.clap = cnn14, vggish, clap

    @property
    def networks(self) -> dict[str, AudioNetwork]:
        """Cnn14 and VGGish, and CLAP where there are captions."""
        networks: dict[str, AudioNetwork] = {"cnn14": self.cnn14, "vggish": self.vggish}
        return networks if self.clap is None else {**networks, "clap": self.clap}

    def embed_text(self, captions: list[str]) -> Tensor:
        """By CLAP's text branch."""
        assert self.clap is not None
        return self.clap.embed_text(captions).cpu()

    def compute(
        self, reference: Heard, generated: Heard, text: Tensor | None, draws: Tensor, progress: Progress = lambda: None
    ) -> dict[str, Score]:
        """See the class; the toolkit's own order of rows decides the ten splits of the inception score."""
        logits_ref, logits_gen = (torch.stack(heard["logits"]).double() for heard in (reference, generated))
        # The constant stands inside the generated logarithm only, and nothing is renormalised: identical sets
        # give a little less than 0.
        log_p_gen = (logits_gen.softmax(-1) + KL_EPSILON).log()
        order = torch.from_numpy(np.random.RandomState(ORDER_SEED).permutation(len(logits_gen)))
        scores = {
            "fd": frechet(reference["features"], generated["features"], draws, progress),
            "fad": frechet(reference["patches"], generated["patches"], draws, progress),
            "kl": mean_of(kl_divergences(logits_ref.log_softmax(-1), log_p_gen), draws),
        }
        if len(logits_gen) >= NUM_SPLITS:  # the toolkit's own answer for fewer is NaN
            scores["is"] = inception(logits_gen.log_softmax(-1)[order], NUM_SPLITS, draws)
        kid, _ = kernel_distance(torch.stack(generated["features"]), torch.stack(reference["features"]))
        scores["kid"] = Score(kid, torch.empty(0, dtype=torch.float64))
        if text is not None:
            scores["clap"] = similarity(generated["audio_embedding"], text, draws)
        return scores
