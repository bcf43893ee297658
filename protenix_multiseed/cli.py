"""The command line: parse, call, exit code. Nothing here imports torch, so that help and refusals come at once.

Exit codes: 0 all done, 1 some failed, 2 refused before starting, 130 and 143 stopped by SIGINT and SIGTERM.
"""

import contextlib
import importlib
import json
import os
import shutil
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from protenix_multiseed import __version__
from protenix_multiseed.errors import ConfigError, ProtenixMsError
from protenix_multiseed.offline import forbid_network

if TYPE_CHECKING:
    from rich.console import Console

    from protenix_multiseed.config import RunConfig
    from protenix_multiseed.dictionary import Dictionary
    from protenix_multiseed.types import Job

REFUSED = 2
app = typer.Typer(
    name="protenix-ms",
    help="Many seeds from Protenix, each exactly its own.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"protenix-ms {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Many seeds from Protenix, each exactly its own."""


_MODEL, _HARDWARE, _OUTPUT = "Model", "Hardware", "Output"


def _option(help_text: str, *names: str, panel: str | None = None) -> Any:
    """An option whose default is decided by the configuration, and so stands in its help text."""
    return typer.Option(*names, help=help_text, show_default=False, rich_help_panel=panel)


@app.command()
def predict(
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUT", help="Protenix JSON files, or folders of them.")],
    seeds: Annotated[
        str | None, _option("1-5 or 1,7,20-30. If not given: each job's modelSeeds, else 101.", "--seeds", "-s")
    ] = None,
    out: Annotated[Path | None, _option("Output folder (output).", "--out", "-o")] = None,
    config: Annotated[
        Path | None, _option("YAML file with any of these settings; options win over it.", "--config", "-c")
    ] = None,
    model: Annotated[
        str | None,
        _option("Any model of Protenix, or demo (protenix_base_default_v1.0.0).", "--model", "-m", panel=_MODEL),
    ] = None,
    checkpoint: Annotated[
        Path | None, _option("Checkpoint ($PROTENIX_ROOT_DIR/checkpoint/MODEL.pt).", panel=_MODEL)
    ] = None,
    samples: Annotated[int | None, _option("Diffusion samples per seed (5).", panel=_MODEL)] = None,
    cycles: Annotated[int | None, _option("Recycling cycles (the model's own).", panel=_MODEL)] = None,
    steps: Annotated[int | None, _option("Diffusion steps (the model's own).", panel=_MODEL)] = None,
    msa: Annotated[bool | None, _option("Use MSAs (the model's own).", "--msa/--no-msa", panel=_MODEL)] = None,
    rna_msa: Annotated[bool | None, _option("Use RNA MSAs (no).", "--rna-msa/--no-rna-msa", panel=_MODEL)] = None,
    template: Annotated[bool | None, _option("Use templates (no).", "--template/--no-template", panel=_MODEL)] = None,
    guidance: Annotated[
        bool | None, _option("Training-free guidance, TFG (no).", "--guidance/--no-guidance", panel=_MODEL)
    ] = None,
    device: Annotated[str | None, _option("auto, cpu, cuda or cuda:1 (auto).", panel=_HARDWARE)] = None,
    kernels: Annotated[
        str | None, _option("Triangle kernels: auto, torch or cuequivariance (auto).", panel=_HARDWARE)
    ] = None,
    workers: Annotated[int | None, _option("CPU worker processes (cores - 1, at most 8).", panel=_HARDWARE)] = None,
    precision: Annotated[
        str | None, _option("reference, or fast: bfloat16 in the diffusion network (reference).", panel=_HARDWARE)
    ] = None,
    stop_when_stable: Annotated[
        int | None, _option("End a job when N further seeds brought no better ranking score (never).", panel=_MODEL)
    ] = None,
    max_seeds_per_batch: Annotated[
        int | None, _option("At most this many seeds at once (20).", panel=_HARDWARE)
    ] = None,
    assume_free: Annotated[
        str | None, _option("Plan for this much device memory, such as 24GiB (what is free).", panel=_HARDWARE)
    ] = None,
    force: Annotated[
        bool | None, _option("Try jobs that seem too large for the device.", "--force", panel=_HARDWARE)
    ] = None,
    sequential: Annotated[
        bool | None, _option("One seed at a time through Protenix's own modules.", "--sequential", panel=_HARDWARE)
    ] = None,
    offline: Annotated[bool | None, _option("Never touch the network.", "--offline", panel=_HARDWARE)] = None,
    grace: Annotated[
        float | None,
        _option("Seconds that the batch in hand has to finish after Ctrl-C or SIGTERM (20).", panel=_HARDWARE),
    ] = None,
    overwrite: Annotated[
        bool | None, _option("Replace results that were made in another way.", "--overwrite", panel=_OUTPUT)
    ] = None,
    verify: Annotated[
        bool | None, _option("Compare the contents of what is there; redo what is damaged.", "--verify", panel=_OUTPUT)
    ] = None,
    log_file: Annotated[Path | None, _option("Log (<out>/protenix-ms/run.log).", panel=_OUTPUT)] = None,
    log_format: Annotated[str | None, _option("Lines of the log: text or json (text).", panel=_OUTPUT)] = None,
    full_confidence: Annotated[
        bool | None,
        _option(
            "Write per-atom and per-pair confidence too (no).", "--full-confidence/--no-full-confidence", panel=_OUTPUT
        ),
    ] = None,
    pae: Annotated[
        str | None, _option("A file of each sample's predicted aligned error: none, json or npz (none).", panel=_OUTPUT)
    ] = None,
    store: Annotated[
        str | None,
        _option("Beside all scores: full, top:K samples of a seed, or slim, its best structure (full).", panel=_OUTPUT),
    ] = None,
    dry_run: Annotated[
        bool, _option("Show sizes, memory and the plan of every job; predict nothing.", "--dry-run", panel=_OUTPUT)
    ] = False,
    as_json: Annotated[bool, _option("With --dry-run: as JSON.", "--json", panel=_OUTPUT)] = False,
    quiet: Annotated[bool, _option("Show errors only.", "--quiet", "-q", panel=_OUTPUT)] = False,
    verbose: Annotated[bool, _option("Show every seed.", "--verbose", "-v", panel=_OUTPUT)] = False,
) -> None:
    """Predict structures for every job in INPUT with every seed, and rank them."""
    options = {
        "seeds": seeds,
        "out": out,
        "model": model,
        "checkpoint": checkpoint,
        "samples": samples,
        "cycles": cycles,
        "steps": steps,
        "msa": msa,
        "rna_msa": rna_msa,
        "template": template,
        "guidance": guidance,
        "device": device,
        "kernels": kernels,
        "workers": workers,
        "precision": precision,
        "stop_when_stable": stop_when_stable,
        "max_seeds_per_batch": max_seeds_per_batch,
        "assume_free": assume_free,
        "force": force,
        "sequential": sequential,
        "full_confidence": full_confidence,
        "pae": pae,
        "store": store,
        "offline": offline,
        "grace": grace,
        "overwrite": overwrite,
        "verify": verify,
        "log_file": log_file,
        "log_format": log_format,
    }
    try:
        if as_json and not dry_run:
            raise ConfigError("--json: it shows the plan, and goes with --dry-run")
        code = _predict(inputs, options, config, -1 if quiet else int(verbose), dry_run=dry_run, as_json=as_json)
    except ProtenixMsError as error:
        _refuse(error)
    except KeyboardInterrupt:  # before the run's own handling of signals began
        raise typer.Exit(130) from None
    except ImportError as error:
        _refuse(ConfigError(f"a package is missing or broken ({error}); install protenix-ms again as its README says"))
    raise typer.Exit(code)


@app.command()
def validate(
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUT", help="Protenix JSON files, or folders of them.")],
    seeds: Annotated[str | None, _option("1-5 or 1,7,20-30.", "--seeds", "-s")] = None,
    config: Annotated[Path | None, _option("YAML file with settings.", "--config", "-c")] = None,
    model: Annotated[
        str | None, _option("Any model of Protenix, or demo (protenix_base_default_v1.0.0).", "--model", "-m")
    ] = None,
    msa: Annotated[bool | None, _option("Use MSAs (the model's own).", "--msa/--no-msa")] = None,
    rna_msa: Annotated[bool | None, _option("Use RNA MSAs (no).", "--rna-msa/--no-rna-msa")] = None,
    template: Annotated[bool | None, _option("Use templates (no).", "--template/--no-template")] = None,
) -> None:
    """Check inputs and configuration as predict does, and stop. Exit code 0 if predict would take them, else 2."""
    from protenix_multiseed.config import load_config

    options = {
        "seeds": seeds, "model": model, "msa": msa, "rna_msa": rna_msa, "template": template,
    }  # fmt: skip
    try:
        jobs, _ = _read_inputs(load_config(options, config), inputs)
    except ProtenixMsError as error:
        _refuse(error)
    for job in jobs:
        typer.echo(f"ok    {job.where}: about {job.n_token} tokens, {len(job.seeds)} seeds")


@app.command()
def doctor(
    model: Annotated[
        str | None, _option("Any model of Protenix, or demo (protenix_base_default_v1.0.0).", "--model", "-m")
    ] = None,
    checkpoint: Annotated[Path | None, _option("Checkpoint ($PROTENIX_ROOT_DIR/checkpoint/MODEL.pt).")] = None,
    out: Annotated[Path | None, _option("Output folder (output).", "--out", "-o")] = None,
    config: Annotated[Path | None, _option("YAML file with settings.", "--config", "-c")] = None,
    device: Annotated[str | None, _option("auto, cpu, cuda or cuda:1 (auto).")] = None,
    as_json: Annotated[bool, _option("As JSON.", "--json")] = False,
) -> None:
    """Look at everything a run needs on this machine. Exit code 1 if predict would not run."""
    from protenix_multiseed.config import load_config

    try:
        resolved = load_config({"model": model, "checkpoint": checkpoint, "out": out, "device": device}, config)
    except ProtenixMsError as error:
        _refuse(error)
    from protenix_multiseed.display import show_check
    from protenix_multiseed.doctor import as_record, examine

    console = _console()
    checks = []
    for check in examine(resolved):
        checks.append(check)
        if not as_json:
            show_check(console, check)
    if as_json:
        console.print_json(json.dumps(as_record(checks)))
    raise typer.Exit(int(any(check.state == "wrong" for check in checks)))


@app.command()
def fetch(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A model of Protenix, one of its ESM models, or template-data.")
    ],
    to: Annotated[Path | None, _option("Folder for the checkpoint ($PROTENIX_ROOT_DIR/checkpoint).")] = None,
    url: Annotated[str | None, _option("Another address, such as a mirror (Protenix's own).")] = None,
) -> None:
    """Download a checkpoint from Protenix's own address, resuming what an earlier try left."""
    from protenix_multiseed.fetch import fetch_model

    try:
        fetch_model(model, to, url)
    except ProtenixMsError as error:
        _refuse(error)


@app.command()
def rank(
    outs: Annotated[
        list[Path], typer.Argument(metavar="OUT", help="Output folders of predict; several are ranked as one.")
    ],
    to: Annotated[Path | None, _option("Where the tables go (the first OUT).")] = None,
    cluster_rmsd: Annotated[
        float, typer.Option(min=0.01, max=1000, help="Average distance within a cluster, Angstrom.")
    ] = 2.0,
    parquet: Annotated[bool, _option("Write the tables as Parquet too; it needs the package pyarrow.")] = False,
) -> None:
    """Rank and compare finished results again, of one run or of several in several places."""
    from rich.markup import escape

    from protenix_multiseed.display import show_findings
    from protenix_multiseed.rank import rank as rank_again

    console = _console()
    try:
        if parquet:
            _require_pyarrow()
        target = to or outs[0]
        for job in rank_again(outs, target, cluster_rmsd=cluster_rmsd, parquet=parquet):
            for note in job.notes:
                console.print(f"[yellow]note[/yellow] {escape(job.name)}: {escape(note)}", soft_wrap=True)
            show_findings(console, job.name, job.findings, target / job.name)
    except ProtenixMsError as error:
        _refuse(error)


@app.command()
def report(
    outs: Annotated[
        list[Path], typer.Argument(metavar="OUT", help="Output folders of predict; several make one page.")
    ],
    to: Annotated[Path | None, _option("The page (OUT/report.html).")] = None,
    slim: Annotated[bool, _option("Carry fewer structures: the best and the clusters' representatives.")] = False,
) -> None:
    """Make one HTML page of finished results: opens from disk, needs no network."""
    from protenix_multiseed.outputs.files import write_text
    from protenix_multiseed.page.build import build_page
    from protenix_multiseed.rank import find_jobs, gather_jobs

    try:
        jobs = {job.name: job.findings for job in gather_jobs(find_jobs(outs))}
        page = to or outs[0] / "report.html"
        try:
            write_text(page, build_page(outs[0].resolve().name, jobs, slim=slim))
        except (OSError, ValueError, KeyError) as error:
            raise ConfigError(f"{page}: the report could not be made: {error}") from None
    except ProtenixMsError as error:
        _refuse(error)
    typer.echo(f"{page}: {page.stat().st_size / 2**20:.1f} MB, {len(jobs)} jobs")


def _require_pyarrow() -> None:
    from importlib.util import find_spec

    if find_spec("pyarrow") is None:
        raise ConfigError("--parquet: it needs the package pyarrow; pip install pyarrow, or leave --parquet out")


@app.command()
def bench(
    model: Annotated[
        str | None, _option("Any model of Protenix, or demo (protenix_base_default_v1.0.0).", "--model", "-m")
    ] = None,
    checkpoint: Annotated[Path | None, _option("Checkpoint (the model's own, else made-up weights).")] = None,
    seeds: Annotated[str | None, _option("1-5 or 1,7,20-30 (1-5).", "--seeds", "-s")] = None,
    samples: Annotated[int | None, _option("Diffusion samples per seed (5).")] = None,
    cycles: Annotated[int | None, _option("Recycling cycles (the model's own).")] = None,
    steps: Annotated[int | None, _option("Diffusion steps (the model's own).")] = None,
    device: Annotated[str | None, _option("auto, cpu, cuda or cuda:1 (auto).")] = None,
    tokens: Annotated[int, typer.Option(min=4, max=5000, help="Residues of the made-up job.")] = 245,
    msa_rows: Annotated[int, typer.Option(min=1, max=20_000, help="Rows of its MSA.")] = 700,
    repeats: Annotated[int, typer.Option(min=1, max=50, help="Repeats, of which the median counts.")] = 3,
    as_json: Annotated[bool, _option("As JSON.", "--json")] = False,
) -> None:
    """Time Protenix seed by seed and all seeds batched, side by side on this machine."""
    from protenix_multiseed.config import load_config
    from protenix_multiseed.dictionary import find_dictionary

    options = {
        "model": model,
        "checkpoint": checkpoint,
        "seeds": seeds or "1-5",
        "samples": samples,
        "cycles": cycles,
        "steps": steps,
        "device": device,
    }
    try:
        config = load_config(options)
        from rich.console import Console

        from protenix_multiseed.bench import bench as measure
        from protenix_multiseed.display import show_bench

        console = _console()
        progress = Console(file=sys.stderr, highlight=False)
        with progress.status("loading", spinner="dots") as status:
            made = measure(config, find_dictionary(), tokens=tokens, rows=msa_rows, repeats=repeats, told=status.update)
        show_bench(console, made, config, as_json=as_json)
    except ProtenixMsError as error:
        _refuse(error)


def _predict(
    inputs: list[Path], options: dict[str, Any], file: Path | None, verbosity: int, *, dry_run: bool, as_json: bool
) -> int:
    """Check everything, then run. From cheap to dear: configuration, inputs, results, and only then torch."""
    from protenix_multiseed.config import load_config
    from protenix_multiseed.outputs.identity import identify
    from protenix_multiseed.outputs.locks import Locks
    from protenix_multiseed.outputs.survey import survey
    from protenix_multiseed.preflight import CheckpointHash, check_surroundings
    from protenix_multiseed.upstream import DEMO_NOTICE

    config = load_config(options, file)
    if config.offline:
        forbid_network()
    checkpoint_hash = None if dry_run else CheckpointHash(config)  # beside all that is checked first
    jobs, dictionary = _read_inputs(config, inputs)
    config = check_surroundings(config, needs_checkpoint=not dry_run)

    from protenix_multiseed.display import RunDisplay, show_plans, show_results, show_survey

    console = _console()
    if checkpoint_hash is None:
        from protenix_multiseed.preview import preview

        plans = preview(config, jobs, dictionary)
        show_plans(console, plans, as_json=as_json)
        return int(any(plan.refusal for plan in plans))
    if not any((config.out / job.name).exists() for job in jobs):  # a first run, which will want both
        importlib.import_module("protenix_multiseed.pipeline")
        importlib.import_module("concurrent.futures.thread")  # torch's; while a refused run ends it would be too late
        threading.Thread(target=_load_torch).start()
    identities = {job.name: identify(config, job, dictionary, checkpoint_hash.result()) for job in jobs}
    found = survey(config.out, jobs, identities, verify=config.verify, overwrite=config.overwrite)
    if verbosity >= 0:
        show_survey(console, found)
    if found.todo:
        from protenix_multiseed.logs import Both, EventLog
        from protenix_multiseed.pipeline import run

        with EventLog(config) as log, RunDisplay(console, found.todo, verbosity).shown() as display:
            report = run(config, jobs, found, identities, dictionary, Both(display, log))
    else:
        from protenix_multiseed.report import RunReport, conclude

        report = RunReport(n_unit=found.n_done, n_before=found.n_done)
        for folder in found.others:
            shutil.rmtree(folder, ignore_errors=True)
        with Locks(config.out) as locks:
            conclude(report, config.out, jobs, identities, locks)
    if verbosity >= 0:
        show_results(console, report, config.out, DEMO_NOTICE if config.is_demo else None)
    return report.exit_code


def _load_torch() -> None:
    with contextlib.suppress(Exception):  # who needs it meets the same, and says so
        importlib.import_module("torch")


def _read_inputs(config: "RunConfig", inputs: list[Path]) -> "tuple[list[Job], Dictionary]":
    from protenix_multiseed.dictionary import find_dictionary
    from protenix_multiseed.inputs import read_jobs
    from protenix_multiseed.inputs.check import InputRules

    dictionary = find_dictionary()
    rules = InputRules(
        model=config.model,
        msa=bool(config.msa),
        rna_msa=config.rna_msa,
        template=config.template,
        max_tokens=config.model_preset.max_tokens,
    )
    return read_jobs(inputs, config.seeds, rules, dictionary), dictionary


def _console() -> "Console":
    """Standard output: this stream, since upstream's prints are kept off the terminal by swapping ``sys.stdout``."""
    from rich.console import Console

    class Patient(Console):
        """Rich ends the process where its pipe was closed; here the run goes on without being watched."""

        def on_broken_pipe(self) -> None:
            self.quiet = True

    is_narrow = (
        not sys.stdout.isatty() and "COLUMNS" not in os.environ
    )  # a file or a pipe, which Rich takes for 80 wide
    return Patient(file=sys.stdout, highlight=False, width=140 if is_narrow else None)


def _refuse(error: ProtenixMsError) -> NoReturn:
    for line in str(error).splitlines():
        typer.echo(f"error: {line}", err=True)
    raise typer.Exit(REFUSED)


if __name__ == "__main__":
    app()
