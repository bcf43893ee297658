"""How fast the devices of this machine are: the times of earlier batches, from which later runs are estimated.

A time is kept as a ratio to what :mod:`.figures` gives for a batch of the same size, so that it also serves for jobs of
similar sizes, and for other cycles and steps. Each version of this program has its own times, because kernels change.
"""

import contextlib
import json
import math
import re
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from protenix_multiseed import __version__
from protenix_multiseed.execution.figures import MOST_TOKENS, batch_seconds
from protenix_multiseed.files import read_text, write_text
from protenix_multiseed.paths import cache_dir

_MOST = 100  # batches that are kept for each device
_MOST_ALIKE = 5  # batches of one process and of similar size that are kept
_NEAR = 2.0  # a batch says something about jobs of up to this many times as many tokens, or as few


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long one batch took.

    Attributes:
        model, precision, kernels, tokens: What the batch computed, and how. Kernels are ``triton`` or ``torch``.
        ratio: Its seconds, divided by those of :func:`.figures.batch_seconds`.
        is_first: Whether it was the first batch of its process, which also compiles kernels and captures graphs.
    """

    model: str
    precision: str
    kernels: str
    tokens: int
    ratio: float
    is_first: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """What earlier batches say about a job.

    Attributes:
        ratio: Median of their ratios.
        is_first: Whether all of them were the first batch of their process.
    """

    ratio: float
    is_first: bool


def note(device: str, timing: Timing) -> None:
    """Keep the time of a batch in the user's cache. A cache that cannot be written is no error.

    Args:
        device: Name of the GPU model or of the processor (:func:`.hardware.speed_name`).
    """
    kept = [asdict(one) for one in [*timings_of(device), timing][-_MOST:]]
    with contextlib.suppress(OSError):
        path = _path(device)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(kept) + "\n")


class Notes:
    """Keeps times of one process's batches: a few for each size.

    Args:
        device: See :func:`note`.
        model: Name of the model.
        cycles, steps, samples: What every batch computes.
    """

    def __init__(self, device: str, model: str, *, cycles: int, steps: int, samples: int) -> None:
        self._device, self._model = device, model
        self._usual = partial(batch_seconds, cycles=cycles, steps=steps, samples=samples)
        self._noted: Counter[int] = Counter()  # by size

    def add(
        self, n_entry: int, n_token: int, seconds: float, *, precision: str, kernels: str, is_first: bool | None = None
    ) -> None:
        """Keep the time of a batch, if there are figures for its size and not enough times of like batches.

        Args:
            n_entry: Number of its entries.
            n_token: Tokens of its largest job.
            seconds: Its seconds, without start-up and writing.
            precision, kernels, is_first: See :class:`Timing`. None: whether it is the first batch that is kept.
        """
        size = round(2 * math.log2(n_token))
        if n_token > MOST_TOKENS or self._noted[size] == _MOST_ALIKE:
            return
        timing = Timing(
            model=self._model,
            precision=precision,
            kernels=kernels,
            tokens=n_token,
            ratio=seconds / self._usual(n_entry, precision=precision, tokens=n_token),
            is_first=not self._noted if is_first is None else is_first,
        )
        note(self._device, timing)
        self._noted[size] += 1


def speed_of(timings: Sequence[Timing], *, model: str, precision: str, kernels: str, tokens: int) -> Speed | None:
    """Return what earlier batches on a device say about a job of this size; None if there were none like it.

    First batches of a process count only if there are no others.

    Args:
        timings: The earlier batches (:func:`timings_of`).
    """
    like = [
        one
        for one in timings
        if (one.model, one.precision, one.kernels) == (model, precision, kernels)
        and abs(math.log(one.tokens / tokens)) <= math.log(_NEAR)
    ]
    later = [one for one in like if not one.is_first]
    ratios = [one.ratio for one in later or like]
    return Speed(ratio=statistics.median(ratios), is_first=not later) if ratios else None


def timings_of(device: str) -> list[Timing]:
    """Return the earlier batches on this device that the user's cache has."""
    try:
        rows = json.loads(read_text(_path(device), cache_dir()))
        return [Timing(**row) for row in rows if row["tokens"] > 0 and row["ratio"] > 0]
    except (OSError, ValueError, TypeError, KeyError):  # no such file, or it is damaged: it will be written anew
        return []


def _path(device: str) -> Path:
    return cache_dir() / "speeds" / __version__ / (re.sub(r"[^A-Za-z0-9]+", "-", device) + ".json")
