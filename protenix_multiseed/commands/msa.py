"""``protenix-ms msa``: search the alignments that jobs lack, and write jobs that name them."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from protenix_multiseed.commands.common import read_inputs, searching
from protenix_multiseed.commands.message import say
from protenix_multiseed.config import RunConfig
from protenix_multiseed.errors import ConfigError
from protenix_multiseed.files import read_text, write_text
from protenix_multiseed.inputs.convert import to_protenix
from protenix_multiseed.offline import forbid_network
from protenix_multiseed.run.prepare import ALIGNMENTS, search
from protenix_multiseed.types import Job
from protenix_multiseed.units import counted


def msa(config: RunConfig, inputs: Sequence[Path], out: Path) -> int:
    """Search the alignments that jobs lack, and write for each input file a Protenix JSON that names them.

    Args:
        config: Configuration, which names the sources.
        inputs: Input files, or folders of them.
        out: Folder for the alignments and the job files.

    Returns:
        The exit code: 1 if searches of some jobs failed. The job files hold the other jobs.

    Raises:
        ProtenixMsError: if the inputs are refused, if a job file would replace another file, or if no search is
            possible.
    """
    if config.offline:
        forbid_network()
    jobs, dictionary = read_inputs(config, inputs)
    targets = _targets(jobs, out)
    with searching() as tell:
        done, failures = search(config, jobs, dictionary, out / ALIGNMENTS, tell)
    for source in dict.fromkeys(job.source for job in done):
        target = targets[source]
        content = [to_protenix(job) for job in done if job.source == source]
        try:
            write_text(target, json.dumps(content, indent=2) + "\n")
        except OSError as error:
            raise ConfigError(f"--out {target}: cannot be written: {error.strerror}") from None
        say(f"wrote {target}: {counted(len(content), 'job')}")
    for failure in failures:
        say(f"error: {failure}", err=True)
    if failures:
        n_job = counted(len(jobs), "job")
        say(f"error: {len(jobs) - len(done)} of {n_job} without an alignment; see above", err=True)
    return 1 if failures else 0


def _targets(jobs: Sequence[Job], out: Path) -> dict[Path, Path]:
    """Return the job file for each input file. One of an earlier search of the same jobs may be replaced.

    Raises:
        ConfigError: if two inputs have the same job file, or if it would replace another file.
    """
    made: dict[Path, Path] = {}
    for source in dict.fromkeys(job.source for job in jobs):
        target = out / f"{source.stem}_msa.json"
        if same := next((other for other, path in made.items() if path == target), None):
            raise ConfigError(f"--out {target}: {same} and {source} would both be written to it: rename one of them")
        made[source] = target
        mine = [to_protenix(job) for job in jobs if job.source == source]
        if os.path.lexists(target) and not _is_earlier(target, mine, (out / ALIGNMENTS).absolute()):
            raise ConfigError(f"--out {target} exists, and is not of these jobs: choose another --out, or move it away")
    return made


def _is_earlier(path: Path, jobs: Sequence[dict[str, Any]], alignments: Path) -> bool:
    """Whether a file holds nothing but some of these jobs, with alignments that an earlier search found."""
    try:
        found = json.loads(read_text(path, path.parent))
    except (OSError, ValueError, RecursionError):
        return False

    def without_found(content: Any) -> Any:
        if isinstance(content, list):
            return [without_found(one) for one in content]
        if not isinstance(content, dict):
            return content
        return {
            key: without_found(value)
            for key, value in content.items()
            if not (key.endswith("MsaPath") and Path(str(value)).parent == alignments)
        }

    mine = json.loads(json.dumps(jobs))  # lists in place of tuples
    return isinstance(found, list) and all(without_found(one) in mine for one in found)
