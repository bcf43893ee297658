"""Read and write lists of seeds: ``1-5``, ``1,7,20-30``."""

from collections import Counter
from collections.abc import Iterable

from protenix_multiseed.errors import ConfigError

DEFAULT_SEED = 101  # upstream's configs_inference.py
MAX_SEED = 2**32 - 1  # numpy's legacy generator takes 32-bit seeds
MAX_SEEDS = 100_000
MAX_PROBLEMS = 5  # of one list of seeds in a message


def parse_seeds(text: str) -> tuple[int, ...]:
    """Parse a comma-separated list of seeds and inclusive ranges. The order is kept.

    Raises:
        ConfigError: if the text is wrong; the message names the wrong part.
    """
    seeds: list[int] = []
    where = f"{text!r}: " if "," in text else ""  # else it is the part that is named
    for part in (piece.strip() for piece in text.split(",")):
        first, dash, last = (piece.strip() for piece in part.partition("-"))
        if not _is_number(first) or (dash and not _is_number(last)):
            raise ConfigError(f"{where}{part!r} is neither a seed nor a range; write for example 1-5 or 1,7,20-30")
        start, stop = int(first), int(last) if dash else int(first)
        if stop < start:
            raise ConfigError(f"{where}the range of seeds {part!r} runs backwards; write {stop}-{start}")
        if max(start, stop) > MAX_SEED:
            raise ConfigError(f"{where}the seed {part!r} is outside 0..{MAX_SEED}")
        if len(seeds) + stop - start + 1 > MAX_SEEDS:
            raise ConfigError(f"{text!r}: more than {MAX_SEEDS} seeds; split them over several runs")
        seeds.extend(range(start, stop + 1))
    return check_seeds(seeds, repr(text))


def check_seeds(seeds: Iterable[int], where: str = "") -> tuple[int, ...]:
    """Refuse an empty list, seeds out of range and seeds given twice.

    Raises:
        ConfigError: if the seeds are refused. The message has a line for each problem, which starts with ``where``.
    """
    result = tuple(seeds)
    problems = [] if result else ["no seed given; write for example 1-5"]
    problems += [f"seed {seed} is outside 0..{MAX_SEED}" for seed in dict.fromkeys(result) if not 0 <= seed <= MAX_SEED]
    problems += [
        f"seed {seed} is given twice; one seed gives one result, so name it once"
        for seed, count in Counter(result).items()
        if count > 1
    ]
    if problems:
        raise ConfigError("\n".join(f"{where}: {problem}" if where else problem for problem in problems[:MAX_PROBLEMS]))
    return result


def format_seeds(seeds: Iterable[int]) -> str:
    """Return the shortest text that :func:`parse_seeds` reads as these seeds: ``(1, 2, 3, 7)`` gives ``1-3,7``."""
    runs: list[list[int]] = []
    for seed in seeds:
        if runs and seed == runs[-1][-1] + 1:
            runs[-1].append(seed)
        else:
            runs.append([seed])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 12
