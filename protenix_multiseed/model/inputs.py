"""A batch's features on the device, and the padding of the stages' tensors.

The features of a job are not padded. The tensors that the stages make of them have the sizes of :mod:`.buckets`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from protenix_multiseed.features.layout import expand, place
from protenix_multiseed.kernels.base import N_QUERY, Lengths
from protenix_multiseed.model.buckets import padded_sizes
from protenix_multiseed.model.network import Network
from protenix_multiseed.types import Batch, Features

PADDING = 0.0  # what padding holds at first. Results do not depend on it, which a test shows with another number


@dataclass(frozen=True, slots=True, kw_only=True)
class JobInputs:
    """The features of one part of a batch on the device: one job and some of its seeds. They are not padded.

    Attributes:
        shared: Upstream's feature dictionary with the features that are equal for all seeds, including ``v_lm``, but
            without ``relp``. The pair features of real templates are not on the device.
        ref_pos: Placed reference conformers [N_seed, N_atom, 3].
        d_lm: Atom pair offsets in local windows [N_seed, N_window, 32, 128, 3] (Alg. 5 line 2).
        has_frame: 1 for tokens with a frame [N_seed, N_token].
    """

    shared: Mapping[str, Any]
    ref_pos: torch.Tensor
    d_lm: torch.Tensor
    has_frame: torch.Tensor
    n_token: int
    n_atom: int

    @property
    def n_seed(self) -> int:
        """Number of seeds of the part."""
        return self.ref_pos.shape[0]

    @property
    def n_window(self) -> int:
        """Number of local windows of atoms."""
        return -(-self.n_atom // N_QUERY)

    def of_seed(self, index: int) -> dict[str, Any]:
        """A new feature dictionary of one seed, in upstream's form except for ``relp``. Callers may change its keys."""
        return {
            **self.shared,
            "ref_pos": self.ref_pos[index],
            "d_lm": self.d_lm[index],
            "has_frame": self.has_frame[index],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """A batch's features on the device.

    Attributes:
        parts: The features of each job. Entries are in the order of the parts, then of the seeds of a part.
        n_token, n_atom: Sizes of the stages' tensors: of all entries, with padding.
        lengths: Number of tokens of each entry without padding.
    """

    parts: tuple[JobInputs, ...]
    n_token: int
    n_atom: int
    lengths: Lengths

    @property
    def owners(self) -> tuple[JobInputs, ...]:
        """The part to which each entry belongs."""
        return tuple(part for part in self.parts for _ in range(part.n_seed))

    @property
    def n_window(self) -> int:
        """Number of local windows of the padded atoms."""
        return -(-self.n_atom // N_QUERY)

    @property
    def n_entry(self) -> int:
        """Number of entries in the batch."""
        return sum(part.n_seed for part in self.parts)

    def spans(self) -> Iterator[tuple[JobInputs, slice]]:
        """Each part, and where its entries lie in the leading dimension of the stages' tensors."""
        first = 0
        for part in self.parts:
            yield part, slice(first, first + part.n_seed)
            first += part.n_seed

    def of_entry(self, index: int) -> dict[str, Any]:
        """A new feature dictionary of one entry (:meth:`JobInputs.of_seed`)."""
        return next(part.of_seed(index - span.start) for part, span in self.spans() if index < span.stop)


def full_of_padding(device: torch.device, *shape: int) -> torch.Tensor:
    """A tensor that holds padding only, float32."""
    return torch.full(shape, PADDING, device=device)


def padded(x: torch.Tensor, n: int, *dims: int) -> torch.Tensor:
    """Pad dimensions of ``x`` at their end to size ``n``; ``x`` itself if they have this size."""
    shape = [n if dim in dims else size for dim, size in enumerate(x.shape)]
    if shape == list(x.shape):
        return x
    made = x.new_full(shape, PADDING)
    made[tuple(slice(size) for size in x.shape)] = x
    return made


def join_parts(made: Sequence[torch.Tensor], n: int, *dims: int) -> torch.Tensor:
    """Pad dimensions of each part's tensor to size ``n``, and join them along their leading dimension of entries.

    One tensor that needs no padding is not copied.
    """
    parts = [padded(x, n, *dims) for x in made]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def make_inputs(network: Network, batch: Batch) -> Inputs:
    """Put the features of a batch on the device, and add the features that ``Protenix.forward`` adds."""
    parts = tuple(_place_part(network, features) for features in batch.parts)
    sizes = padded_sizes([features.sizes for features in batch.parts])
    numbers = [part.n_token for part in parts for _ in range(part.n_seed)]
    lengths = Lengths.of(numbers, network.device, sizes.n_token)
    return Inputs(parts=parts, n_token=sizes.n_token, n_atom=sizes.n_atom, lengths=lengths)


def _place_part(network: Network, features: Features) -> JobInputs:
    from protenix.model.protenix import update_input_feature_dict

    seeds = features.seeds
    shared = expand(features, seeds[0], device=network.device, templates=torch.device("cpu"))
    ref_pos = torch.stack([place(seed.ref_pos, network.device) for seed in seeds])
    d_lm = []
    for one in ref_pos:
        shared = update_input_feature_dict({**shared, "ref_pos": one})
        d_lm.append(shared["d_lm"])
    has_frame = torch.stack([place(seed.has_frame, network.device).long() for seed in seeds])
    shared = {key: value for key, value in shared.items() if key not in {"ref_pos", "d_lm", "has_frame"}}
    return JobInputs(
        shared=shared,
        ref_pos=ref_pos,
        d_lm=torch.stack(d_lm),
        has_frame=has_frame,
        n_token=features.n_token,
        n_atom=features.n_atom,
    )
