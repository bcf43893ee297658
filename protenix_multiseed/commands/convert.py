"""``protenix-ms convert``: write checked inputs in another format."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import typer

from protenix_multiseed.commands.common import read_inputs
from protenix_multiseed.commands.formats import SHORT_NAMES
from protenix_multiseed.commands.message import say
from protenix_multiseed.config import RunConfig
from protenix_multiseed.errors import ConfigError
from protenix_multiseed.files import write_text
from protenix_multiseed.inputs.convert import to_alphafold3, to_protenix
from protenix_multiseed.inputs.notes import notes_of

FORMATS = ("protenix", "alphafold3")


def convert(config: RunConfig, inputs: Sequence[Path], to: str, out: Path | None) -> None:
    """Read the inputs, check them and write their jobs.

    Args:
        config: Configuration, which decides what inputs may contain.
        inputs: Input files, or folders of them.
        to: A format of :data:`FORMATS`, or its short name.
        out: The file to write, or a folder for it; None for standard output. AlphaFold 3's format has one job a file:
            for several jobs, or without the suffix .json, it is a folder, which need not exist.

    Raises:
        ProtenixMsError: if an input is refused, or cannot be written in the format.
    """
    to = SHORT_NAMES.get(to, to)
    if to not in FORMATS:
        raise ConfigError(f"--to {to!r} is not known; choose one of {', '.join(FORMATS)}")
    jobs, _ = read_inputs(config, inputs)
    for job in jobs:
        of_prediction = set(notes_of(job.spec, config.input_rules))
        for note in job.notes:
            if note not in of_prediction:
                say(f"note {job.name}: {note}", err=True)
        for number, one in job.spec.polymers("protein") if to != "protenix" else ():
            if one.structures and one.paired is None and one.unpaired is None:
                text = "AlphaFold 3 takes templates only with alignments, so it gets empty ones and will not search"
                say(f"note {job.name}: entity {number} has templates and no alignment; {text}", err=True)
    is_folder = out is not None and out.is_dir()
    if to == "protenix":
        name = jobs[0].name if len(jobs) == 1 else inputs[0].stem
        files = {out / f"{name}.json" if out is not None and is_folder else out: [to_protenix(job) for job in jobs]}
    elif len(jobs) == 1 and (out is None or (out.suffix == ".json" and not is_folder)):
        files = {out: to_alphafold3(jobs[0])}  # type: ignore[dict-item]
    elif out is None:
        raise ConfigError(f"--out: {len(jobs)} jobs make as many AlphaFold 3 files: name a folder for them")
    else:
        files = {out / f"{job.name}.json": to_alphafold3(job) for job in jobs}  # type: ignore[misc]
    for path in files:
        if path is not None and os.path.lexists(path):
            raise ConfigError(f"{path} exists already: choose another --out")
    for path, content in files.items():
        text = json.dumps(content, indent=2) + "\n"
        if path is None:
            typer.echo(text, nl=False)
            continue
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, text)
        except OSError as error:
            raise ConfigError(f"--out {path}: cannot be written: {error.strerror}") from None
        say(f"wrote {path}", err=True)
