"""The metrics that tables show: their digits, their better direction, and which judge's they are."""

from dataclasses import dataclass
from typing import Literal, get_args


@dataclass(frozen=True)
class Metric:
    """How a metric is shown: its digits, and which direction is better (-1 lower, 1 higher, 0 neither)."""

    digits: int
    better: int

    def arrow(self) -> str:
        """The direction as a sign."""
        return {-1: " ↓", 0: "", 1: " ↑"}[self.better]


HELD_OUT = "held_out"
"""The judge of models that make no sound from captions: their own held-out metric is the score."""
JUDGED: dict[str, dict[str, Metric]] = {
    "embedded": {
        "fd_judge": Metric(3, -1),
        "kl_judge": Metric(3, -1),
        "is_judge": Metric(3, 1),
        "text_judge": Metric(3, 1),
    },
    "audioldm": {
        "fd": Metric(2, -1),
        "kad": Metric(3, -1),
        "fad": Metric(2, -1),
        "fad_jackknife": Metric(2, -1),
        "kl": Metric(2, -1),
        "is": Metric(2, 1),
        "clap": Metric(3, 1),
    },
    HELD_OUT: {},
}
# Of runs that were recorded before heads declared their held-out metric (`mntp.heads.base.HeldOut`).
HELD_OUT_BEFORE = {"ntp_loss": Metric(4, -1)}
OWN = {"train_seconds": Metric(0, 0)}
# What a table shows beside these where its `columns` say so, as in Table 4.
EXTRA_METRICS = {
    "parameters": Metric(0, 0),
    "head_parameters": Metric(0, 0),
    "head_share": Metric(3, 0),
    "sample_seconds": Metric(1, 0),
    "gpu_hours": Metric(2, 0),  # in every table where a run had a GPU
    "fd_judge_raw": Metric(3, -1),
    "precision_judge": Metric(3, 1),
    "recall_judge": Metric(3, 1),
    "density_judge": Metric(3, 1),
    "coverage_judge": Metric(3, 1),
    "vendi_judge": Metric(2, 1),
    "kid": Metric(4, -1),
    # Of codecs: decibels, two scores of speech, and log10 units.
    "si_sdr": Metric(2, 1),
    "stoi": Metric(3, 1),
    "pesq": Metric(2, 1),
    "mel_distance": Metric(3, -1),
}
_FAMILIES = (*JUDGED.values(), HELD_OUT_BEFORE, OWN, EXTRA_METRICS)
METRICS = {name: metric for family in _FAMILIES for name, metric in family.items()}
UNDECLARED = Metric(4, 0)


def shown_metrics(judge: str, held_out: dict[str, Metric] = HELD_OUT_BEFORE) -> dict[str, Metric]:
    """The metrics that every table of a judge shows, with the held-out metrics of its rows."""
    return JUDGED[judge] | held_out | OWN


JudgeKind = Literal["embedded", "audioldm"]
JUDGES: dict[str, JudgeKind] = {kind: kind for kind in get_args(JudgeKind)}
