"""``protenix-ms models``: the models that can be run, and where their checkpoints are."""

import json
from pathlib import Path
from typing import Any

import typer
from rich.table import Table

from protenix_multiseed.commands.console import make_console
from protenix_multiseed.upstream.checkpoints import checkpoint_path, default_checkpoint_dir
from protenix_multiseed.upstream.models import DEFAULT_MODEL, MODELS, ModelSpec


def models(*, as_json: bool) -> None:
    """Show all models with their sizes, limits and checkpoints.

    Args:
        as_json: Print JSON instead of a table.
    """
    if as_json:
        typer.echo(json.dumps([_record(spec) for spec in MODELS], indent=2))
        return
    table = Table(header_style="bold", box=None, pad_edge=False)
    table.add_column("model", no_wrap=True)
    for column in ("size", "trained to", "tokens"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("reads")
    table.add_column("here", no_wrap=True)
    for spec in MODELS:
        table.add_row(
            spec.name,
            f"{spec.million_parameters:.0f} M" if spec.million_parameters else "",
            spec.cutoff or "",
            str(spec.max_tokens or ""),
            ", ".join(_reads(spec)),
            "-" if spec.made_up_weights else "yes" if not _missing(spec) else "no",
        )
    console = make_console()
    console.print(table)
    console.print(
        f"Size is the number of parameters, tokens the most that a model takes. Checkpoints are in "
        f"{default_checkpoint_dir()}; 'protenix-ms fetch MODEL' downloads one. The default is {DEFAULT_MODEL}."
    )


def _reads(spec: ModelSpec) -> list[str]:
    known = (
        ("MSA", spec.msa), ("RNA MSA", spec.template), ("templates", spec.template), ("constraints", spec.constraint),
        ("ESM", spec.esm),
    )  # fmt: skip
    return [name for name, is_read in known if is_read]


def _files(spec: ModelSpec) -> list[Path]:
    path = checkpoint_path(spec, None)
    language = spec.esm.checkpoints if spec.esm else ()
    return [path, *(default_checkpoint_dir() / f"{name}.pt" for name in language)] if path else []


def _missing(spec: ModelSpec) -> list[Path]:
    return [path for path in _files(spec) if not path.is_file()]


def _record(spec: ModelSpec) -> dict[str, Any]:
    return {
        "model": spec.name,
        "million_parameters": spec.million_parameters,
        "trained_until": spec.cutoff,
        "max_tokens": spec.max_tokens,
        "cycles": spec.cycles,
        "steps": spec.steps,
        "reads": _reads(spec),
        "files": [str(path) for path in _files(spec)],
        "missing": [str(path) for path in _missing(spec)],
    }
