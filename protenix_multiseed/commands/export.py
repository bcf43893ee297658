"""``protenix-ms export``: write finished results as other programs write them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from protenix_multiseed.analysis.findings import has_structure
from protenix_multiseed.commands.console import make_console, show_problems
from protenix_multiseed.commands.formats import SHORT_NAMES
from protenix_multiseed.commands.message import say
from protenix_multiseed.errors import ConfigError
from protenix_multiseed.files import make_scratch, publish_folder, read_text, remove
from protenix_multiseed.outputs.export import alphafold3_files, pdb_files
from protenix_multiseed.outputs.found import RankedJob, find_jobs, gather_job, refuse_if_none, skipped
from protenix_multiseed.types import Sample
from protenix_multiseed.units import counted

FORMATS = {"alphafold3": alphafold3_files, "pdb": pdb_files}
MARKER = ".protenix-ms-export"  # lists the files of an export, so that the next one replaces these and no others


def export(outs: Sequence[Path], to: Path, kind: str, *, best: bool) -> int:
    """Write the samples of every job. A job that cannot be written is named and left out; then 1 is returned, else 0.

    Args:
        outs: Output folders of predict.
        to: Folder for the files. Each job gets a folder in it, which replaces that of an earlier export.
        kind: A format of :data:`FORMATS`.
        best: Write only the best sample of each job.

    Raises:
        ConfigError: if the format is not known, a folder holds no results, files that no export wrote would be
            replaced, or no job can be written.
    """
    kind = SHORT_NAMES.get(kind, kind)
    if kind not in FORMATS:
        raise ConfigError(f"--format {kind!r} is not known; choose one of {', '.join(FORMATS)}")
    if any(to.resolve() == out.resolve() for out in outs):
        raise ConfigError(f"--to {to}: the folder holds the results themselves; choose another one")
    jobs = find_jobs(outs)
    for found in jobs:
        _refuse_other_files(to / found.name)
    console, made = make_console(), []
    for found in jobs:
        job = gather_job(found)
        if job.findings is not None:
            try:
                count = _write(job, to / job.name, kind, best=best)
                say(f"{to / job.name}: {counted(count, 'file')}")
                if not best and (text := _lacking(job.findings.samples)):
                    job = replace(job, notes=(*job.notes, text))
            except Exception as error:  # this job is skipped; the other jobs are still written
                job = replace(skipped(found, error, "written"), is_begun=isinstance(error, OSError))
        show_problems(console, job)
        made.append(job)
    refuse_if_none(made, "written")
    return int(any(job.problems for job in made))


def _lacking(samples: Sequence[Sample]) -> str:
    """Say what is left out of an export, and whether the best sample is; empty if nothing is. The best comes first."""
    lacking = [sample for sample in samples if not has_structure(sample)]
    if not lacking:
        return ""
    text = f"{counted(len(lacking), 'sample')} left out: structure not kept (--store), or deleted"
    if (best := samples[0]) is lacking[0]:
        text += (
            f"; the best one (seed {best.seed}, sample {best.sample}) is among them, and best.cif in the job's folder"
        )
    return text


def _refuse_other_files(target: Path) -> None:
    """Refuse to replace a folder with files that no export wrote.

    Raises:
        ConfigError: if there are such files; the message names one.
    """
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise ConfigError(f"--to: {target} exists and is no folder of an export; choose another --to")
    try:
        known = {MARKER, *read_text(target / MARKER, target).splitlines()}
    except FileNotFoundError:
        known = set()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--to: {target / MARKER}: cannot be read: {error}; choose another --to") from None
    for path in target.rglob("*"):
        if str(path.relative_to(target)) not in known and (path.is_symlink() or not path.is_dir()):
            raise ConfigError(
                f"--to: {target} would be replaced, and no export wrote {path}; choose another --to, or move it away"
            )


def _write(job: RankedJob, target: Path, kind: str, *, best: bool) -> int:
    """Write the files of a job. They appear together. Return their number."""
    assert job.findings is not None
    samples = job.findings.samples[:1] if best else job.findings.samples
    # AlphaFold 3's form needs all samples, and is refused without; what somebody has deleted is left out.
    is_slim = kind == "alphafold3" and any(sample.structure is None for sample in samples)
    samples = samples if is_slim else tuple(filter(has_structure, samples))
    if not samples:
        which = "the structure of the best sample was" if best else "the structures were"
        raise ConfigError(
            f"{which} not kept (--store), or deleted: predict again with --store full, with --overwrite or into "
            "another --out; best.cif in the job's folder is the best structure"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch, names = make_scratch(target), []
    try:
        for name, content in FORMATS[kind](job.name, samples):
            path = scratch / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(content, encoding="utf-8")
            names.append(name)
        (scratch / MARKER).write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
        publish_folder(scratch, target)
    except BaseException:
        remove(scratch)
        raise
    return len(names)
