"""The first pass of a preparation: read every sound, to find out which clips it gives."""

import dataclasses
from typing import Any

from data_modules.corpora.base import Finding
from data_modules.preparation.findings import Survey
from data_modules.preparation.job import Job
from data_modules.preparation.machine import memory_errors
from data_modules.preparation.work_queue import Piece
from mntp.io.progress import progress

ROWS_PER_PIECE = 256


def read_sounds(job: Job, worker: tuple[int, int]) -> Survey:
    """Read all rows together with other processes.

    Args:
        job: the preparation.
        worker: number of this process, and how many there are.
    """
    rows = job.source.rows
    pieces = _pieces(job)
    with progress("reading sounds", len(rows), worker[0] == 0) as advance:

        def read(place: int) -> list[dict[str, Any]]:
            first = place * ROWS_PER_PIECE
            findings = []
            for row in rows[first : first + ROWS_PER_PIECE]:
                with memory_errors(row.file):
                    findings.append(dataclasses.asdict(job.source.inspect(row, job.size)))
                advance(1)
            return findings

        job.share(pieces, read, worker, advance)
    return Survey(job.source, [Finding(**finding) for piece in pieces for finding in piece.result()])


def _pieces(job: Job) -> list[Piece]:
    pieces = []
    for number, first in enumerate(range(0, len(job.source.rows), ROWS_PER_PIECE)):
        rows = job.source.rows[first : first + ROWS_PER_PIECE]
        decides = [[dataclasses.astuple(row), job.source.stamp(row)] for row in rows]
        pieces.append(job.piece("sounds", number, len(rows), decides))
    return pieces
