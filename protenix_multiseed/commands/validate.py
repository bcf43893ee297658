"""``protenix-ms validate``: check inputs and configuration as ``predict`` does, without predicting."""

import json
from collections.abc import Sequence
from pathlib import Path

import typer
from rich.markup import escape

from protenix_multiseed.commands.common import read_inputs
from protenix_multiseed.commands.console import MAX_ROWS, make_console, show_note
from protenix_multiseed.config import RunConfig
from protenix_multiseed.errors import RefusedInputsError
from protenix_multiseed.units import counted, visible


def validate(config: RunConfig, inputs: Sequence[Path], *, as_json: bool, show_all: bool) -> None:
    """Check the inputs and show the jobs.

    Args:
        config: Configuration, which decides what inputs may contain.
        inputs: Input files, or folders of them.
        as_json: Print JSON instead of text: a list of jobs, or a list of problems.
        show_all: Show every job; otherwise only the first 20.

    Raises:
        ProtenixMsError: if predict would refuse the inputs.
    """
    try:
        jobs, _ = read_inputs(config, inputs)
    except RefusedInputsError as error:
        if as_json:
            typer.echo(json.dumps([{"problem": problem} for problem in error.problems], indent=2))
        raise
    if as_json:
        rows = [
            {
                "job": job.name,
                "source": str(job.source),
                "index": job.index,
                "tokens": job.n_token,
                "seeds": len(job.seeds),
                "entities": job.spec.summary,
                "notes": list(job.notes),
            }
            for job in jobs
        ]
        typer.echo(json.dumps(rows, indent=2))
        return
    shown = jobs if show_all else jobs[:MAX_ROWS]
    console = make_console()
    for job in shown:
        sizes = f"about {counted(job.n_token, 'token')}, {counted(len(job.seeds), 'seed')}"
        console.print(f"ok    {escape(job.where)}: {sizes}: {escape(visible(job.spec.summary))}", soft_wrap=True)
        for note in job.notes:
            show_note(console, job.name, note)
    if len(shown) < len(jobs):
        noted = sum(bool(job.notes) for job in jobs[MAX_ROWS:])
        text = f"... and {len(jobs) - len(shown)} more jobs that are ok, {noted} of them with notes"
        console.print(f"{text} (-v shows all, --json has all)", soft_wrap=True)
        n_unit = sum(len(job.seeds) for job in jobs)
        most = max(job.n_token for job in jobs)
        console.print(f"{counted(len(jobs), 'job')}, {counted(n_unit, 'prediction')}, up to {counted(most, 'token')}")
