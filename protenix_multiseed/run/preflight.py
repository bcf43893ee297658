"""Checks before a run starts that do not need torch: the checkpoint file, the output folder, the template aligner."""

import importlib
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from protenix_multiseed.config import RunConfig
from protenix_multiseed.errors import ConfigError, ProtenixMsError, WeightsError
from protenix_multiseed.execution.base import executor_name
from protenix_multiseed.execution.gpus import check_ray, chosen_gpus
from protenix_multiseed.failures import advice_for, reason_of
from protenix_multiseed.hashes import hash_file, recorded_sha256, sha256, sha256_kept
from protenix_multiseed.search.sources import make_searchers
from protenix_multiseed.upstream.checkpoints import fetch_hint, template_data_dir

_N_SEMAPHORE = 2  # as many as a pool of workers makes
SHARED_MEMORY_ADVICE = "mount a tmpfs of 1 MiB or more there that can be written (docker run --shm-size=64m)"


def check_surroundings(config: RunConfig, *, needs_checkpoint: bool = True, has_hits: bool = True) -> RunConfig:
    """Check the files, folders and programs that the run needs, so that it does not fail later.

    Args:
        config: The configuration of the run.
        needs_checkpoint: Whether a missing checkpoint is an error.
        has_hits: Whether a job names hits of a template search. Only they need kalign, dates and structures.

    Returns:
        The configuration, with the path of kalign if templates are used.

    Raises:
        ConfigError: if a folder cannot be written, or a program or data for templates is missing.
        WeightsError: if the checkpoint is missing.
    """
    if needs_checkpoint:
        check_checkpoint(config)
    _check_output(config.out)
    if config.log_file is not None:
        folder = config.log_file.absolute().parent
        if not folder.is_dir() or config.log_file.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
            raise ConfigError(f"--log-file {config.log_file}: the file cannot be written; choose another path")
    if not config.template or not has_hits:
        return config
    config = _find_kalign(config)
    dates = template_data_dir() / "release_date_cache.json"
    if not dates.is_file():  # upstream drops every template without a known date
        raise ConfigError(f"--template: no release dates at {dates}; run 'protenix-ms fetch template-data'")
    structures = config.templates.mmcif_dir or template_data_dir().parent / "mmcif"
    if not structures.is_dir() and not config.templates.fetch:
        raise ConfigError(
            f"--template: no folder of template structures at {structures}; set templates.mmcif_dir in the YAML, or "
            "templates.fetch: true to fetch them from PDBe during the run"
        )
    return config


def check_machine(config: RunConfig) -> None:
    """Check what other runs find out when they load the model: a search of alignments may take hours before that.

    Raises:
        ConfigError: if the device, Ray or the workers' semaphores are missing.
    """
    check_workers()
    _check_gpus(config)
    if executor_name(config) == "local":
        # It imports torch.
        importlib.import_module("protenix_multiseed.execution.hardware").choose_device(config.device)


def missing_parts(config: RunConfig) -> Iterator[str]:
    """Yield why this machine could not run, but for what :func:`check_surroundings` finds: a plan can do without it."""
    for check in (_check_weights, _check_gpus, _check_searches, lambda _: check_workers()):
        try:
            check(config)
        except ProtenixMsError as error:
            yield str(error)


def _check_weights(config: RunConfig) -> None:
    check_checkpoint(config)
    CheckpointHash(config).result()


def _check_gpus(config: RunConfig) -> None:
    if executor_name(config) == "ray":
        check_ray()
        if config.ray is None and config.device != "cpu":
            chosen_gpus(config.gpus)


def _check_searches(config: RunConfig) -> None:
    make_searchers(config, lambda _: None)


def check_checkpoint(config: RunConfig) -> None:
    """Check that the checkpoint is there.

    Raises:
        WeightsError: if it is not.
    """
    checkpoint = config.checkpoint_path
    if checkpoint is not None and not checkpoint.is_file():
        raise WeightsError(f"no checkpoint at {checkpoint}; {fetch_hint(config.model)}")


def check_sha256(checkpoint: Path, model_name: str, hash_of: Callable[[Path], str] = sha256) -> str:
    """Return the checkpoint's SHA-256, after comparing it with the recorded SHA-256, if there is one.

    Args:
        hash_of: Hashes the file.

    Raises:
        WeightsError: if the file has changed since it was fetched, or cannot be read.
    """
    try:
        found, recorded = hash_of(checkpoint), recorded_sha256(checkpoint)
    except OSError as error:
        raise WeightsError(f"{checkpoint}: cannot be read: {error.strerror}; {advice_for(error)}") from None
    if recorded is not None and recorded != found:
        raise WeightsError(
            f"{checkpoint} is not the file that was fetched: SHA-256 {found[:16]}..., recorded {recorded[:16]}... "
            f"in {hash_file(checkpoint).name}; delete it, then {fetch_hint(model_name)}"
        )
    return found


class CheckpointHash(threading.Thread):
    """A thread that hashes a run's checkpoint during the other checks, unless the cache has the hash.

    Hashing releases the GIL.
    """

    def __init__(self, config: RunConfig) -> None:
        super().__init__(daemon=True)
        self._checkpoint, self._model = config.checkpoint_path, config.model
        self._outcome: str | BaseException | None = None
        self.start()

    def run(self) -> None:
        """Compute the hash. Called by the thread."""
        if self._checkpoint is None:
            return
        try:
            self._outcome = check_sha256(self._checkpoint, self._model, sha256_kept)
        except BaseException as error:  # never None: that would mean that there is nothing to check
            self._outcome = error

    def result(self) -> str | None:
        """Wait for the hash and return it; None for the demo model, which has no checkpoint.

        Raises:
            WeightsError: if the file has changed since it was fetched, or cannot be read.
        """
        self.join()
        if isinstance(self._outcome, BaseException):
            raise self._outcome
        return self._outcome


def existing_part(path: Path) -> Path:
    """Return the path itself if it exists, else the closest folder above it that exists.

    Raises:
        OSError: if a folder on the way cannot be entered, or if this is not a path.
    """
    return next(part for part in (path, *path.absolute().parents) if part.exists())


def check_workers() -> None:
    """Check that worker processes can start.

    Raises:
        ConfigError: if they cannot.
    """
    if (problem := semaphore_problem()) is not None:
        raise ConfigError(f"/dev/shm: the workers cannot make semaphores there: {problem}; {SHARED_MEMORY_ADVICE}")


def semaphore_problem() -> str | None:
    """Return why the workers cannot use semaphores, which Linux keeps in /dev/shm; None if they can."""
    import multiprocessing

    try:  # a semaphore of this kind removes its file at once
        held = [multiprocessing.get_context("fork").RLock() for _ in range(_N_SEMAPHORE)]
    except (OSError, ImportError) as error:  # ImportError: this Python was built without semaphores
        return getattr(error, "strerror", None) or str(error)
    held.clear()
    return None


def _check_output(out: Path) -> None:
    try:
        existing = existing_part(out)
    except PermissionError as error:
        raise ConfigError(f"--out {out}: a folder on the way cannot be entered: {reason_of(error)}") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"--out: not a folder's name ({getattr(error, 'strerror', None) or error})") from None
    if not existing.is_dir():
        raise ConfigError(f"--out {out}: {existing} is a file; choose another folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ConfigError(f"--out {out}: {existing} cannot be written; choose another folder")


def _find_kalign(config: RunConfig) -> RunConfig:
    kalign = config.templates.kalign or shutil.which("kalign")
    if kalign is None or not os.access(kalign, os.X_OK):
        raise ConfigError(
            f"--template: Protenix aligns templates with the program kalign, which is not "
            f"{'on PATH' if kalign is None else f'at {kalign}'}; install it (apt-get install kalign, or conda install "
            "-c bioconda kalign) or set templates.kalign in the YAML file"
        )
    return config.model_copy(update={"templates": config.templates.model_copy(update={"kalign": Path(kalign)})})
