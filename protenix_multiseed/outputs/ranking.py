"""All seeds and samples of a job, ranked."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from protenix_multiseed.outputs.files import copy_file, write_text
from protenix_multiseed.types import Sample

COLUMNS = (
    "rank",
    "job",
    "seed",
    "sample",
    "ranking_score",
    "plddt",
    "ptm",
    "iptm",
    "has_clash",
    "structure",
    "confidence",
)


def ranked(samples: Sequence[Sample]) -> list[Sample]:
    """Best first; equal scores in the order of seed and sample, so that the order never depends on how the run went."""
    return sorted(samples, key=lambda sample: (-sample.ranking_score, sample.seed, sample.sample))


def write_ranking(folder: Path, samples: Sequence[Sample]) -> Sample:
    """Write ``ranking.csv``, ``best.cif`` and ``best_summary_confidence.json`` of one job; returns the best sample."""
    order = ranked(samples)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for rank, sample in enumerate(order, start=1):
        table.writerow(
            [
                rank,
                sample.job,
                sample.seed,
                sample.sample,
                sample.ranking_score,
                sample.plddt,
                sample.ptm,
                sample.iptm,
                int(sample.has_clash),
                sample.structure.relative_to(folder),
                sample.confidence.relative_to(folder),
            ]
        )
    write_text(folder / "ranking.csv", text.getvalue())
    copy_file(order[0].structure, folder / "best.cif")
    copy_file(order[0].confidence, folder / "best_summary_confidence.json")
    return order[0]
