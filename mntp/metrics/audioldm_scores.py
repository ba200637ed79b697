"""The five scores of the paper as the AudioLDM evaluation toolkit defines them, and distances without their bias.

FD, KL, IS, KID and KAD over Cnn14 at 16 kHz, FAD over VGGish, CLAP by LAION's music_speech_audioset checkpoint. The
definitions follow github haoheliu/audioldm_eval at 8dc07ee; CLAP follows its branch passt_replace_panns without the
random replacement of embeddings there, which biases the mean and changes from run to run.
"""

import torch
from torch import Tensor

from mntp.metrics.divergence import kl_divergences
from mntp.metrics.jackknife import Score, as_defined, corrected, mean_score
from mntp.metrics.kernel import (
    cubic_kernel,
    kernel_audio_distance,
    kernel_distance,
    paired_discrepancy,
)
from mntp.metrics.networks.base import AudioNetwork
from mntp.metrics.networks.clap import ClapScorer
from mntp.metrics.networks.cnn14 import Cnn14
from mntp.metrics.networks.vggish import VGGish
from mntp.metrics.score_sets import Embeddings, ScoreSet, frechet, inception, similarity

KL_EPSILON = 1e-6
NUM_SPLITS = 10


class ToolkitScores(ScoreSet):
    """`fd`, `kl`, `is`, `kid`, `kad` (Cnn14), `fad`, `fad_jackknife` (VGGish), and `clap` where it is given.

    `fd`, `fad`, `kl`, `is` and `clap` are the paper's. `fd` and `fad` are squared feature units with the bias of so
    many clips, which depends on the system: differences between systems rest on `kad` (of 2,048 features, where no
    correction of `fd` is known) and on `fad_jackknife`. `kl` is in nats of the softmax over 527 classes, reference ||
    generated; `is` lies between 1 and 527; `clap` is a cosine.
    """

    kind = "audioldm"
    scores = ("fd", "kad", "fad", "fad_jackknife", "kl", "is", "clap", "kid")
    text_scores = ("clap",)
    min_clips = 256  # twice VGGish's features

    def __init__(self, cnn14: Cnn14, vggish: VGGish, clap: ClapScorer | None) -> None:
        self.cnn14, self.vggish, self.clap = cnn14, vggish, clap

    @property
    def networks(self) -> dict[str, AudioNetwork]:
        """Cnn14 and VGGish, and CLAP where there are captions."""
        networks: dict[str, AudioNetwork] = {"cnn14": self.cnn14, "vggish": self.vggish}
        return networks if self.clap is None else {**networks, "clap": self.clap}

    def inputs(self, score: str) -> tuple[str, ...]:
        """FAD rests on VGGish, the CLAP score on CLAP and captions, all others on Cnn14."""
        network = "vggish" if score.startswith("fad") else "clap" if score in self.text_scores else "cnn14"
        return (network, "captions") if score in self.text_scores else (network,)

    def embed_text(self, captions: list[str]) -> Tensor:
        """By CLAP's text branch."""
        assert self.clap is not None
        return self.clap.embed_text(captions).cpu()

    def compute(self, reference: Embeddings, generated: Embeddings, text: Tensor | None) -> dict[str, Score]:
        """See the class; the toolkit's own order of rows decides the ten splits of the inception score."""
        logits_ref, logits_gen = (torch.stack(outputs["logits"]).double() for outputs in (reference, generated))
        features_ref, features_gen = (torch.stack(outputs["features"]).double() for outputs in (reference, generated))
        # The constant stands inside the generated logarithm only, and nothing is renormalised: identical sets
        # give a little less than 0.
        log_p_gen = (logits_gen.softmax(-1) + KL_EPSILON).log()
        fad, fad_jackknife = frechet(reference["patches"], generated["patches"])
        scores = {
            "fd": frechet(reference["features"], generated["features"])[0],
            "kad": corrected(*kernel_audio_distance(features_gen, features_ref), floor=0.0),
            "fad": fad,
            "fad_jackknife": fad_jackknife,
            "kl": mean_score(kl_divergences(logits_ref.log_softmax(-1), log_p_gen)),
            "kid": kid(features_gen, features_ref),
        }
        if len(logits_gen) >= NUM_SPLITS:  # the toolkit's own answer for fewer is NaN
            scores["is"] = inception(logits_gen.log_softmax(-1), NUM_SPLITS)
        if text is not None:
            scores["clap"] = similarity(generated["audio_embedding"], text)
        return scores


def kid(generated: Tensor, reference: Tensor) -> Score:
    """The toolkit's kernel distance, with the spread of the unbiased one over all clips."""
    value, _ = kernel_distance(generated, reference)
    kernels = (cubic_kernel(*pair) for pair in ((generated, generated), (reference, reference), (generated, reference)))
    return as_defined(value, paired_discrepancy(*kernels)[1], floor=0.0)
