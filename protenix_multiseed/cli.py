"""The command line: parse the options, call the command, return the exit code.

This module does not import torch, so the help appears at once.

Exit codes: 0 all done, 1 some failed, 2 refused before the start, 130 stopped by SIGINT, 143 stopped by SIGTERM.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from protenix_multiseed import __version__
from protenix_multiseed.aliases import translate
from protenix_multiseed.commands.message import say
from protenix_multiseed.completion import names_in
from protenix_multiseed.errors import ConfigError, ProtenixMsError
from protenix_multiseed.options import OUTPUT, option, takes
from protenix_multiseed.process import own_process, settle_output, use_utf8

if TYPE_CHECKING:
    from protenix_multiseed.config import RunConfig

SUMMARY = "Run many seeds of Protenix in one GPU batch. A seed gives the same result in a batch as alone."


class _App(typer.Typer):
    """The commands, for a process of their own."""

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Run the command that the arguments name, and end the process."""
        use_utf8()
        with own_process():
            if not arguments and not named:
                try:
                    named = {"args": translate(sys.argv[1:])}
                except ConfigError as error:
                    say(f"error: {error}", err=True)
                    raise SystemExit(error.exit_code) from None
            super().__call__(*arguments, **named)


app = _App(
    name="protenix-ms",
    help=SUMMARY,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
Inputs = Annotated[list[Path], typer.Argument(metavar="INPUT", help="Input files, or folders of them.")]
Results = Annotated[list[Path], typer.Argument(metavar="OUT", help="Output folders of predict.")]
AsJson = Annotated[bool, option("Print JSON.", "--json")]


def _version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"protenix-ms {__version__}")
        raise typer.Exit


@app.callback(help=SUMMARY)
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Handle the options that come before the command's name."""


@app.command()
@takes()
def predict(
    settings: dict[str, Any],
    inputs: Inputs,
    dry_run: Annotated[
        bool, option("Show sizes, plan, memory and time of every job; predict nothing.", "--dry-run", panel=OUTPUT)
    ] = False,
    as_json: Annotated[bool, option("With --dry-run: print JSON.", "--json", panel=OUTPUT)] = False,
    quiet: Annotated[bool, option("Show errors only.", "--quiet", "-q", panel=OUTPUT)] = False,
    verbose: Annotated[bool, option("Show every seed.", "--verbose", "-v", panel=OUTPUT)] = False,
) -> None:
    """Predict structures for every job in INPUT with every seed, and rank them."""
    with _refusals():
        if as_json and not dry_run:
            raise ConfigError("--json: it works only with --dry-run; add --dry-run, or leave --json out")
        config = _load(settings)
        if dry_run:
            from protenix_multiseed.commands.dry_run import dry_run as command

            code = command(config, inputs, as_json=as_json, show_all=verbose)
        else:
            from protenix_multiseed.commands.predict import predict as command_predict

            code = command_predict(config, inputs, verbosity=-1 if quiet else int(verbose))
    raise typer.Exit(code)


@app.command()
@takes("seeds", "config", "model", "msa", "rna_msa", "template", "template_from_input")
def validate(
    settings: dict[str, Any],
    inputs: Inputs,
    as_json: AsJson = False,
    verbose: Annotated[bool, option("Show every job, however many there are.", "--verbose", "-v")] = False,
) -> None:
    """Check inputs and configuration as predict does, then stop. Exit code 0 if predict would accept them, else 2."""
    with _refusals():
        from protenix_multiseed.commands.validate import validate as command

        command(_load(settings), inputs, as_json=as_json, show_all=verbose)


@app.command()
@takes("seeds", "config", "model", "offline")
def msa(
    settings: dict[str, Any],
    inputs: Inputs,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the MSAs and the job files.")],
    server: Annotated[
        str | None, option("Address of a ColabFold server. It is sent the sequences of proteins without an MSA.")
    ] = None,
    database: Annotated[Path | None, option("An MMseqs2 database, or a folder with ColabFold's databases.")] = None,
    rna_database: Annotated[list[Path] | None, option("FASTA file to search for RNAs without an MSA.")] = None,
    gpu: Annotated[bool, option("Search --database on a GPU.", "--gpu")] = False,
) -> None:
    """Make MSAs for the chains of INPUT that have none, and write job files that name them."""
    with _refusals():
        from protenix_multiseed.commands.msa import msa as command

        sources = {"msa_server": server, "msa_database": database, "rna_databases": rna_database, "msa_gpu": gpu}
        code = command(_load({**settings, **{key: value for key, value in sources.items() if value}}), inputs, out)
    raise typer.Exit(code)


@app.command()
@takes("seeds", "config", "model")
def convert(
    settings: dict[str, Any],
    inputs: Inputs,
    to: Annotated[
        str, typer.Option("--to", help="protenix or alphafold3.", autocompletion=names_in("convert", "FORMATS"))
    ],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File, or a folder (standard output).")] = None,
) -> None:
    """Write inputs of any format as Protenix or AlphaFold 3 JSON."""
    with _refusals():
        from protenix_multiseed.commands.convert import convert as command

        command(_load(settings), inputs, to, out)


@app.command()
@takes("model", "checkpoint", "out", "config", "device", out="Folder whose disk is checked (output).")
def doctor(settings: dict[str, Any], as_json: AsJson = False) -> None:
    """Check everything that a run needs on this machine. Exit code 1 if predict would not run."""
    with _refusals():
        from protenix_multiseed.commands.doctor import doctor as command

        code = command(_load(settings), as_json=as_json)
    raise typer.Exit(code)


@app.command()
def models(as_json: AsJson = False) -> None:
    """List the models: size, newest training structures, limits, and whether the weights are here."""
    with _refusals():
        from protenix_multiseed.commands.models import models as command

        command(as_json=as_json)


@app.command()
def fetch(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A model of Protenix, one of its ESM models, or template-data.",
            autocompletion=names_in("fetch", "fetchable"),
        ),
    ],
    to: Annotated[Path | None, option("Folder for the checkpoint ($PROTENIX_ROOT_DIR/checkpoint).")] = None,
    url: Annotated[str | None, option("Another address to download from, such as a mirror (Protenix's own).")] = None,
    sha256: Annotated[str | None, option("SHA-256 that the checkpoint must have.")] = None,
) -> None:
    """Download a checkpoint from Protenix's own address. An interrupted download is resumed."""
    with _refusals():
        from protenix_multiseed.commands.fetch import fetch_model

        fetch_model(model, to, url, sha256)


@app.command()
def rank(
    outs: Results,
    to: Annotated[Path | None, option("Folder for the tables (the first OUT).")] = None,
    cluster_rmsd: Annotated[
        float, typer.Option(min=0.01, max=1000, help="Average distance within a cluster, Angstrom.")
    ] = 2.0,
    parquet: Annotated[bool, option("Write the tables as Parquet too; it needs the package pyarrow.")] = False,
) -> None:
    """Rank and compare finished results again, from one output folder or from several."""
    with _refusals():
        from protenix_multiseed.commands.rank import rank as command

        code = command(outs, to, cluster_rmsd=cluster_rmsd, parquet=parquet)
    raise typer.Exit(code)


@app.command()
def report(
    outs: Results,
    to: Annotated[Path | None, option("File for the page (OUT/report.html).")] = None,
    slim: Annotated[bool, option("Include fewer structures: the best and each cluster's representative.")] = False,
    one_file: Annotated[bool, option("Put all jobs into one file, which can be sent to somebody.")] = False,
    png: Annotated[bool, option("Write plots as PNG files too (OUT/JOB/plots).")] = False,
) -> None:
    """Make HTML pages of finished results: one per job, and a list of jobs. They open from disk, without network."""
    with _refusals():
        from protenix_multiseed.commands.report import report as command

        code = command(outs, to, slim=slim, one_file=one_file, png=png)
    raise typer.Exit(code)


@app.command()
def export(
    outs: Results,
    to: Annotated[Path, typer.Option("--to", help="Folder for the files.")],
    kind: Annotated[
        str, typer.Option("--format", "-f", help="alphafold3 or pdb.", autocompletion=names_in("export", "FORMATS"))
    ] = "alphafold3",
    best: Annotated[bool, option("Only the best sample of each job.", "--best")] = False,
) -> None:
    """Write results as AlphaFold 3 does, for scripts that read its files, or as PDB files.

    AlphaFold 3's files hold the errors of all pairs: predict with --full-confidence from the first run on.
    """
    with _refusals():
        from protenix_multiseed.commands.export import export as command

        code = command(outs, to, kind, best=best)
    raise typer.Exit(code)


@app.command()
def status(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Output folder of predict.")], as_json: AsJson = False
) -> None:
    """Show what is done, running, failed and left in an output folder, also while runs write to it."""
    with _refusals():
        from protenix_multiseed.commands.status import status as command

        code = command(out, as_json=as_json)
    raise typer.Exit(code)


@app.command()
@takes(
    "model", "checkpoint", "seeds", "samples", "cycles", "steps", "device",
    seeds="1-5 or 1,7,20-30 (1-5).", checkpoint="Checkpoint (the model's own, else made-up weights).",
)  # fmt: skip
def bench(
    settings: dict[str, Any],
    tokens: Annotated[int, typer.Option(min=4, max=5000, help="Residues of the made-up job.")] = 245,
    msa_rows: Annotated[int, typer.Option(min=1, max=20_000, help="Rows of its MSA.")] = 700,
    repeats: Annotated[int, typer.Option(min=1, max=50, help="Repeats; the median time is shown.")] = 3,
    as_json: AsJson = False,
) -> None:
    """Time two ways on this machine: Protenix seed by seed, and all seeds in batches."""
    with _refusals():
        config = _load({"seeds": "1-5", **settings})
        from protenix_multiseed.commands.bench import bench as command

        command(config, tokens=tokens, rows=msa_rows, repeats=repeats, as_json=as_json)


def _load(settings: dict[str, Any]) -> "RunConfig":
    from protenix_multiseed.config_loading import load_config

    options = dict(settings)
    file = options.pop("config", None)
    return load_config(options, file)


@contextmanager
def _refusals() -> Iterator[None]:
    """Turn errors that the user can act on into messages and exit codes."""
    try:
        yield
    except ProtenixMsError as error:
        _end(str(error), error.exit_code)
    except KeyboardInterrupt:  # before the run installed its signal handlers
        raise typer.Exit(130) from None
    except ImportError as error:
        _end(f"a package is missing or broken ({error}); install protenix-ms again as its README says")
    except OSError as error:  # of the surroundings: a run reports those of its work itself
        from protenix_multiseed.failures import advice_for, reason_of

        _end(f"{reason_of(error)}; {advice_for(error)}, then run the same command again")


def _end(message: str, code: int = 2) -> None:
    settle_output()
    for line in message.split("\n"):
        say(f"error: {line}", err=True)
    raise typer.Exit(code)


if __name__ == "__main__":
    app()
