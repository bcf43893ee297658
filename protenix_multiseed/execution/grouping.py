"""Collect small jobs of like size that share a batch, in the order in which they come.

A group is one job, or several jobs that are one batch. Neighbours in the order of the run are alike, so a group is
extended while the next job fits.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from protenix_multiseed.types import Failure

Member = TypeVar("Member")


def group(
    coming: Iterable[Member | Failure | None],
    may_share: Callable[[Sequence[Member]], bool],
    is_awaited: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[Member, ...] | Failure]:
    """Yield groups of members. Each member is in one group, and members keep their order. Failures pass at once.

    Args:
        coming: The members; None says that the next member is not ready yet.
        may_share: Whether members may be one group. A member that may not even be a group of one that others join is
            yielded alone.
        is_awaited: Whether the device has nothing to do. Then a group is yielded as soon as no member is ready, so it
            never waits for slow featurization.
    """
    made: list[Member] = []
    for member in coming:
        if member is None:
            if made and is_awaited():
                yield tuple(made)
                made = []
            continue
        if isinstance(member, Failure):
            yield member
            continue
        if made and not may_share([*made, member]):
            yield tuple(made)
            made = []
        made.append(member)
        if len(made) == 1 and not may_share(made):
            yield tuple(made)
            made = []
    if made:
        yield tuple(made)
