"""The command line: parse, call, exit code. Nothing here imports torch, so that help and refusals come at once.

Exit codes: 0 all done, 1 some failed, 2 refused before starting.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from protenix_multiseed import __version__
from protenix_multiseed.errors import ProtenixMsError

REFUSED = 2
app = typer.Typer(name="protenix-ms", help="Many seeds from Protenix, each exactly its own.", no_args_is_help=True,
                  add_completion=False, pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]})


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"protenix-ms {__version__}")
        raise typer.Exit


@app.callback()
def main(version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")] = False) -> None:
    """Many seeds from Protenix, each exactly its own."""


_MODEL, _HARDWARE, _OUTPUT = "Model", "Hardware", "Output"


@app.command()
def predict(
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUT...", help="Protenix JSON files, or folders of them.")],
    seeds: Annotated[str | None, typer.Option("--seeds", "-s", help="1-5 or 1,7,20-30; else each job's modelSeeds, else 101.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Output folder.", show_default="output")] = None,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="YAML file with any of these settings; options win over it.")] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="Any model of Protenix, or demo.",
                                              show_default="protenix_base_default_v1.0.0", rich_help_panel=_MODEL)] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="Checkpoint file.", show_default="$PROTENIX_ROOT_DIR/checkpoint/MODEL.pt",
                                                    rich_help_panel=_MODEL)] = None,
    samples: Annotated[int | None, typer.Option(help="Diffusion samples per seed.", show_default="5", rich_help_panel=_MODEL)] = None,
    cycles: Annotated[int | None, typer.Option(help="Recycling cycles.", show_default="the model's", rich_help_panel=_MODEL)] = None,
    steps: Annotated[int | None, typer.Option(help="Diffusion steps.", show_default="the model's", rich_help_panel=_MODEL)] = None,
    msa: Annotated[bool | None, typer.Option("--msa/--no-msa", help="Use MSAs.", show_default="the model's", rich_help_panel=_MODEL)] = None,
    rna_msa: Annotated[bool | None, typer.Option("--rna-msa", help="Use RNA MSAs.", show_default="no", rich_help_panel=_MODEL)] = None,
    template: Annotated[bool | None, typer.Option("--template", help="Use templates.", show_default="no", rich_help_panel=_MODEL)] = None,
    guidance: Annotated[bool | None, typer.Option("--guidance", help="Training-free guidance (TFG).", show_default="no",
                                                  rich_help_panel=_MODEL)] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:1.", show_default="auto", rich_help_panel=_HARDWARE)] = None,
    kernels: Annotated[str | None, typer.Option(help="Triangle kernels: auto, torch or cuequivariance.", show_default="auto",
                                                rich_help_panel=_HARDWARE)] = None,
    workers: Annotated[int | None, typer.Option(help="CPU worker processes.", show_default="cores - 1, at most 8",
                                                rich_help_panel=_HARDWARE)] = None,
    sequential: Annotated[bool | None, typer.Option("--sequential", help="One seed at a time through Protenix's own modules.",
                                                    show_default="no", rich_help_panel=_HARDWARE)] = None,
    full_confidence: Annotated[bool | None, typer.Option("--full-confidence", help="Write per-atom and per-pair confidence too.",
                                                         show_default="no", rich_help_panel=_OUTPUT)] = None,
    offline: Annotated[bool | None, typer.Option("--offline", help="Never touch the network.", show_default="no",
                                                 rich_help_panel=_HARDWARE)] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show errors only.", rich_help_panel=_OUTPUT)] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show every seed.", rich_help_panel=_OUTPUT)] = False,
) -> None:
    """Predict structures for every job in INPUT with every seed, and rank them."""
    options = {"seeds": seeds, "out": out, "model": model, "checkpoint": checkpoint, "samples": samples, "cycles": cycles, "steps": steps,
               "msa": msa, "rna_msa": rna_msa, "template": template, "guidance": guidance, "device": device, "kernels": kernels,
               "workers": workers, "sequential": sequential, "full_confidence": full_confidence, "offline": offline}
    try:
        code = _predict(inputs, options, config, -1 if quiet else int(verbose))
    except ProtenixMsError as error:
        _refuse(error)
    raise typer.Exit(code)


@app.command()
def fetch(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model of Protenix, or one of its ESM models.")],
    to: Annotated[Path | None, typer.Option(help="Folder for the checkpoint.", show_default="$PROTENIX_ROOT_DIR/checkpoint")] = None,
    url: Annotated[str | None, typer.Option(help="Another address, such as a mirror.", show_default="Protenix's own")] = None,
) -> None:
    """Download a checkpoint from Protenix's own address, resuming what an earlier try left."""
    from protenix_multiseed.fetch import fetch_model

    try:
        fetch_model(model, to, url)
    except ProtenixMsError as error:
        _refuse(error)


def _predict(inputs: list[Path], options: dict[str, Any], file: Path | None, verbosity: int) -> int:
    """Check everything, then run. The order is cheap to dear: configuration, inputs, checkpoint, and only then torch."""
    from protenix_multiseed.config import load_config
    from protenix_multiseed.dictionary import find_dictionary
    from protenix_multiseed.inputs import read_jobs
    from protenix_multiseed.inputs.check import InputRules
    from protenix_multiseed.preflight import check_surroundings

    config = load_config(options, file)
    dictionary = find_dictionary()
    rules = InputRules(model=config.model, msa=bool(config.msa), rna_msa=config.rna_msa, template=config.template,
                       max_tokens=config.model_preset.max_tokens)
    jobs = read_jobs(inputs, config.seeds, rules, dictionary)
    config = check_surroundings(config)

    from rich.console import Console

    console = Console(stderr=False, highlight=False)
    from protenix_multiseed.display import RunDisplay, show_results  # imports torch, and so comes after every check
    from protenix_multiseed.pipeline import run
    from protenix_multiseed.upstream import DEMO_NOTICE

    with RunDisplay(console, jobs, verbosity).shown() as display:
        report = run(config, jobs, dictionary, display)
    if verbosity >= 0:
        show_results(console, report, config.out, DEMO_NOTICE if config.is_demo else None)
    return report.exit_code


def _refuse(error: ProtenixMsError) -> None:
    for line in str(error).splitlines():
        typer.echo(f"error: {line}", err=True)
    raise typer.Exit(REFUSED)


if __name__ == "__main__":
    app()
