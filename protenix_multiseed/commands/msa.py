"""``protenix-ms msa``: search the alignments that jobs lack, and write jobs that name them."""

import json
from collections.abc import Sequence
from pathlib import Path

from protenix_multiseed.commands.common import read_inputs, searching
from protenix_multiseed.commands.message import say
from protenix_multiseed.config import RunConfig
from protenix_multiseed.errors import ConfigError
from protenix_multiseed.files import write_text
from protenix_multiseed.inputs.convert import to_protenix
from protenix_multiseed.offline import forbid_network
from protenix_multiseed.run.prepare import ALIGNMENTS, search


def msa(config: RunConfig, inputs: Sequence[Path], out: Path) -> int:
    """Search the alignments that jobs lack, and write for each input file a Protenix JSON that names them.

    Args:
        config: Configuration, which names the sources.
        inputs: Input files, or folders of them.
        out: Folder for the alignments and the job files.

    Returns:
        The exit code: 1 if searches of some jobs failed. The job files hold the other jobs.

    Raises:
        ProtenixMsError: if the inputs are refused, or if no search is possible.
    """
    if config.offline:
        forbid_network()
    jobs, dictionary = read_inputs(config, inputs)
    with searching() as tell:
        done, failures = search(config, jobs, dictionary, out / ALIGNMENTS, tell)
    for source in dict.fromkeys(job.source for job in done):
        target = out / f"{source.stem}_msa.json"
        content = [to_protenix(job) for job in done if job.source == source]
        try:
            write_text(target, json.dumps(content, indent=2) + "\n")
        except OSError as error:
            raise ConfigError(f"--out {target}: cannot be written: {error.strerror}") from None
        say(f"wrote {target}: {len(content)} jobs")
    for failure in failures:
        say(f"error: {failure}", err=True)
    if failures:
        say(f"error: {len(jobs) - len(done)} of {len(jobs)} jobs lack an alignment; see above", err=True)
    return 1 if failures else 0
