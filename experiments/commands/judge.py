"""`mntp judge`: train an embedded judge, as the shipped one was trained."""

from pathlib import Path

from rich.console import Console

from data_modules.scenes import EmbeddedCorpus
from experiments.runs.run_or_store import judged_corpus
from experiments.scoring.train_judge import save_judge
from mntp.io.files import file_sha256


def judge(out: Path = Path("data/judges"), judge_of: Path | None = None) -> None:
    """Train the embedded judge of a corpus and write it with its recipe and quality; an existing one is replaced.

    Args:
        out: folder to write into.
        judge_of: a run or a store of the embedded corpus; the default corpus if left out.

    Raises:
        ValueError: `judge_of` is neither a run nor a store, or is of another corpus.
    """
    corpus = EmbeddedCorpus() if judge_of is None else judged_corpus(judge_of)
    out.mkdir(parents=True, exist_ok=True)
    path = save_judge(out, corpus)
    Console().print(f"{path}: sha256 {file_sha256(path)}", markup=False, highlight=False, soft_wrap=True)
