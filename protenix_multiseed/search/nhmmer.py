"""Search RNA databases with nhmmer, through Protenix's own search code (``runner/rna_msa_search.py``)."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from protenix_multiseed.errors import ConfigError
from protenix_multiseed.search.base import Found, QueryError, Tell

_PROGRAMS = ("nhmmer", "hmmalign", "hmmbuild")
_E_VALUE = 1e-3  # these two as upstream sets them
_MAX_ROWS = 10_000


class Nhmmer:
    """See :class:`protenix_multiseed.search.base.Searcher`.

    Args:
        databases: FASTA files of RNA sequences.
        threads: CPU threads.
        tell: Receives the steps.

    Raises:
        ConfigError: if a database is missing or HMMER is not installed.
    """

    batch = 1

    def __init__(self, databases: Sequence[Path], *, threads: int, tell: Tell) -> None:
        for path in databases:
            if not path.is_file():
                raise ConfigError(f"{path}: no such file: an RNA database is a FASTA file")
        if missing := [name for name in _PROGRAMS if shutil.which(name) is None]:
            raise ConfigError(f"{', '.join(missing)}: not found; install HMMER (apt install hmmer) and put it on PATH")
        self._databases, self._threads, self._tell = [path.absolute() for path in databases], threads, tell
        self.name = " ".join(["nhmmer", *(f"{path} {path.stat().st_mtime_ns}" for path in self._databases)])

    def search(self, sequences: Sequence[str]) -> list[Found]:
        """See :class:`protenix_multiseed.search.base.Searcher`."""
        return [Found(unpaired=self._search(sequence)) for sequence in sequences]

    def pair(self, sequences: Sequence[str]) -> list[str] | None:
        """Return None: Protenix pairs no RNA."""
        return None

    def _search(self, sequence: str) -> str:
        from protenix.data.constants import RNA_CHAIN
        from protenix.data.msa.msa_utils import RawMsa
        from protenix.data.tools import search

        nhmmer, hmmalign, hmmbuild = (shutil.which(name) for name in _PROGRAMS)
        made = []
        for path in self._databases:
            self._tell(f"searching {path.name}")
            tool = search.Nhmmer(
                binary_path=nhmmer,
                hmmalign_binary_path=hmmalign,
                hmmbuild_binary_path=hmmbuild,
                database_path=str(path),
                n_cpu=self._threads,
                e_value=_E_VALUE,
                alphabet="rna",
                max_sequences=_MAX_ROWS,
            )
            try:
                made.append(RawMsa.from_a3m(sequence, RNA_CHAIN, tool.query(sequence).a3m, dedup=False))
            except (RuntimeError, subprocess.CalledProcessError) as error:
                raise QueryError(f"nhmmer failed on {path.name}: {str(error).strip().splitlines()[-1][:300]}") from None
        merged: str = RawMsa.merge(made, deduplicate=True).to_a3m()
        return merged
