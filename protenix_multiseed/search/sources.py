"""The sources that a configuration names."""

import os

from protenix_multiseed.config import RunConfig
from protenix_multiseed.job_spec import PolymerKind
from protenix_multiseed.search.base import Searcher, Tell
from protenix_multiseed.search.mmseqs import Mmseqs, find_databases
from protenix_multiseed.search.nhmmer import Nhmmer


def make_searchers(config: RunConfig, tell: Tell) -> dict[PolymerKind, Searcher]:
    """Return the source for each kind of polymer; empty if the configuration names none.

    Raises:
        ConfigError: if a source cannot be used.
    """
    threads = config.workers or os.cpu_count() or 1
    made: dict[PolymerKind, Searcher] = {}
    if config.msa_server:
        from protenix_multiseed.search.server import Server

        made["protein"] = Server(config.msa_server, tell)
    elif config.msa_database:
        made["protein"] = Mmseqs(find_databases(config.msa_database), gpu=config.msa_gpu, threads=threads, tell=tell)
    if config.rna_databases:
        made["rna"] = Nhmmer(config.rna_databases, threads=threads, tell=tell)
    return made
