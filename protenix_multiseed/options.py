"""The command-line options of all settings, each declared once.

This module does not import the configuration, so the help appears at once. The configuration decides the defaults, so
each help text states its default in parentheses.
"""

import inspect
from collections.abc import Callable
from copy import copy
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from protenix_multiseed.completion import values_of

_Command = TypeVar("_Command", bound=Callable[..., Any])
_MODEL, _READ, _HARDWARE, OUTPUT = "Model", "MSAs, templates and guidance", "Hardware", "Output"


def option(help_text: str, *names: str, panel: str | None = None) -> Any:
    """Return an option without a default; the configuration decides the default."""
    return typer.Option(*names, help=help_text, show_default=False, rich_help_panel=panel)


def _flag(name: str) -> str:
    return f"--{name}/--no-{name}"


SETTINGS: dict[str, tuple[Any, Any]] = {
    "seeds": (str, option("1-5 or 1,7,20-30. If not given: each job's modelSeeds, else 101.", "--seeds", "-s")),
    "out": (Path, option("Output folder (output).", "--out", "-o")),
    "config": (Path, option("YAML file with any of these settings; options override it.", "--config", "-c")),
    "model": (
        str,
        option("Any model of Protenix, or demo (protenix_base_default_v1.0.0).", "--model", "-m", panel=_MODEL),
    ),
    "checkpoint": (Path, option("Checkpoint file (MODEL.pt in $PROTENIX_ROOT_DIR/checkpoint).", panel=_MODEL)),
    "samples": (int, option("Diffusion samples per seed (5).", panel=_MODEL)),
    "cycles": (int, option("Recycling cycles (the model's own).", panel=_MODEL)),
    "steps": (int, option("Diffusion steps (the model's own).", panel=_MODEL)),
    "stop_when_stable": (
        int,
        option("End a job when its last N seeds did not improve the best ranking score (never).", panel=_MODEL),
    ),
    "msa": (bool, option("Use MSAs (the model's own).", _flag("msa"), panel=_READ)),
    "rna_msa": (bool, option("Use RNA MSAs (no).", _flag("rna-msa"), panel=_READ)),
    "msa_server": (
        str,
        option("Ask this ColabFold server for missing MSAs; it is sent the sequences (never).", panel=_READ),
    ),
    "msa_database": (
        Path,
        option("Make missing MSAs from this MMseqs2 database or folder of ColabFold's databases (never).", panel=_READ),
    ),
    "template": (bool, option("Use templates (no).", _flag("template"), panel=_READ)),
    "template_from_input": (
        bool,
        option(
            "If the input is a structure, use its coordinates as templates of its proteins (no).",
            "--template-from-input",
            panel=_READ,
        ),
    ),
    "guidance": (bool, option("Training-free guidance, TFG (no).", _flag("guidance"), panel=_READ)),
    "protenix_exact": (
        bool,
        option(
            "Keep Protenix's reading of inputs that it misreads (docs/differences.md).",
            "--protenix-exact",
            panel=_READ,
        ),
    ),
    "device": (str, option("auto, cpu, cuda or cuda:1 (auto).", panel=_HARDWARE)),
    "gpus": (str, option("Several GPUs of this machine: all, 2, or 0,2 (one GPU).", panel=_HARDWARE)),
    "ray": (str, option("All GPUs of a Ray cluster: auto, or its address (no cluster).", panel=_HARDWARE)),
    "kernels": (str, option("GPU kernels: auto, torch or cuequivariance (auto).", panel=_HARDWARE)),
    "workers": (int, option("CPU worker processes, for each GPU (cores - 1, at most 8).", panel=_HARDWARE)),
    "precision": (
        str,
        option("reference, or fast: bfloat16 in diffusion and confidence head (reference).", panel=_HARDWARE),
    ),
    "max_seeds_per_batch": (int, option("At most this many seeds at once (20).", panel=_HARDWARE)),
    "max_jobs_per_batch": (
        int,
        option("At most this many small jobs in one batch; 1: none is shared (as many as pay).", panel=_HARDWARE),
    ),
    "assume_free": (
        str,
        option("Plan for this much free device memory, such as 24GiB (ask the device).", panel=_HARDWARE),
    ),
    "force": (bool, option("Try jobs that seem too large for the device.", "--force", panel=_HARDWARE)),
    "sequential": (
        bool,
        option("One seed at a time through Protenix's own modules.", "--sequential", panel=_HARDWARE),
    ),
    "offline": (bool, option("Never use the network.", "--offline", panel=_HARDWARE)),
    "grace": (
        float,
        option("Seconds that the running batch has to finish after Ctrl-C or SIGTERM (20).", panel=_HARDWARE),
    ),
    "overwrite": (bool, option("Replace results of other inputs, settings or versions.", "--overwrite", panel=OUTPUT)),
    "verify": (
        bool,
        option("Check the contents of existing files; predict damaged seeds again.", "--verify", panel=OUTPUT),
    ),
    "log_file": (Path, option("Log file (run.log in the output folder).", panel=OUTPUT)),
    "log_format": (str, option("Format of the log: text or json (text).", panel=OUTPUT)),
    "full_confidence": (
        bool,
        option(
            "Write per-atom and per-pair confidence too; export to AlphaFold 3 needs it (no).",
            _flag("full-confidence"),
            panel=OUTPUT,
        ),
    ),
    "pae": (
        str,
        option("File for each sample's predicted aligned error: none, json or npz (none).", panel=OUTPUT),
    ),
    "store": (
        str,
        option(
            "Structures to keep of each seed: full (all), top:K (the K best) or slim (the best) (full).",
            panel=OUTPUT,
        ),
    ),
}


def takes(*keys: str, **helps: str) -> Callable[[_Command], _Command]:
    """Decorate a command so that it takes settings as options.

    The command receives the options that the user gave as its argument ``settings``.

    Args:
        keys: Keys of :data:`SETTINGS`, in the order of the help. None named: all keys.
        helps: Help texts for this command that replace the usual ones, by key.
    """

    def decorate(command: _Command) -> _Command:
        own = [one for name, one in inspect.signature(command).parameters.items() if name != "settings"]
        added = [_parameter(key, helps.get(key)) for key in keys or SETTINGS]

        def call(**values: Any) -> Any:
            settings = {one.name: values.pop(one.name) for one in added}
            return command(**values, settings={key: value for key, value in settings.items() if value is not None})

        first = [one for one in own if one.default is inspect.Parameter.empty]
        rest = [one for one in own if one.default is not inspect.Parameter.empty]
        parameters = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in (*first, *added, *rest)]
        made: Any = call
        made.__signature__ = inspect.Signature(parameters)
        made.__annotations__ = {one.name: one.annotation for one in parameters}
        made.__name__, made.__doc__ = command.__name__, command.__doc__
        decorated: _Command = made
        return decorated

    return decorate


def _parameter(key: str, help_text: str | None) -> inspect.Parameter:
    kind, declared = SETTINGS[key]
    declared = copy(declared)
    if help_text is not None:
        declared.help = help_text
    if kind is str:
        declared.autocompletion = values_of(key)
    annotation: Any = Annotated[kind | None, declared]
    return inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
