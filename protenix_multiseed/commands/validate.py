"""``protenix-ms validate``: check inputs and configuration as ``predict`` does, without predicting."""

import json
from collections.abc import Sequence
from pathlib import Path

import typer

from protenix_multiseed.commands.common import MAX_ROWS, read_inputs
from protenix_multiseed.config import RunConfig
from protenix_multiseed.units import visible


def validate(config: RunConfig, inputs: Sequence[Path], *, as_json: bool, show_all: bool) -> None:
    """Check the inputs and show the jobs.

    Args:
        config: Configuration, which decides what inputs may contain.
        inputs: Input files, or folders of them.
        as_json: Print JSON instead of text.
        show_all: Show every job; otherwise only the first 20.

    Raises:
        ProtenixMsError: if predict would refuse the inputs.
    """
    jobs, _ = read_inputs(config, inputs)
    if as_json:
        rows = [
            {
                "job": job.name,
                "source": str(job.source),
                "index": job.index,
                "tokens": job.n_token,
                "seeds": len(job.seeds),
                "notes": list(job.notes),
            }
            for job in jobs
        ]
        typer.echo(json.dumps(rows, indent=2))
        return
    shown = jobs if show_all else jobs[:MAX_ROWS]
    for job in shown:
        typer.echo(f"ok    {visible(job.where)}: about {job.n_token} tokens, {len(job.seeds)} seeds")
        for note in job.notes:
            typer.echo(f"{typer.style('note', fg='yellow')} {job.name}: {visible(note)}")
    if len(shown) < len(jobs):
        noted = sum(bool(job.notes) for job in jobs[MAX_ROWS:])
        typer.echo(
            f"... and {len(jobs) - len(shown)} more jobs that are ok, {noted} of them with notes "
            "(-v shows all, --json has all)"
        )
        n_unit = sum(len(job.seeds) for job in jobs)
        most = max(job.n_token for job in jobs)
        typer.echo(f"{len(jobs)} jobs, {n_unit} predictions, up to {most} tokens")
