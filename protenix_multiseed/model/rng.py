"""The random numbers of one (job, seed). No other file of the engine draws random numbers.

Upstream draws from four global generators in turn: Python's, numpy's, torch's on the CPU and torch's on the device.
:class:`SeedRng` holds copies of the four generators for one seed, so that many seeds can run side by side and no seed
changes the draws of another. Each method makes one of upstream's draws. :meth:`SeedRng.as_globals` makes the copies
the global generators while upstream's own code runs.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from protenix_multiseed.types import SeedFeatures


class SeedRng:
    """The generators of one seed, in their state after upstream has featurized this job alone with this seed.

    In upstream the model begins to draw in this state.

    Args:
        seed: The seed's features, which carry the generators' states.
        device: Where the model runs; upstream draws tensors there.
    """

    def __init__(self, seed: SeedFeatures, device: torch.device) -> None:
        self.seed, self.device = seed.seed, device
        self._python = random.Random()
        self._python.setstate(seed.python_state)
        self._numpy = np.random.RandomState()
        self._numpy.set_state(seed.numpy_state)
        self._cpu = torch.Generator()
        self._cpu.set_state(torch.from_numpy(seed.torch_state.copy()))
        self._on_device = self._cpu if device.type == "cpu" else torch.Generator(device).manual_seed(seed.seed)

    def coin(self, probability: float) -> bool:
        """Whether MC dropout is on for this seed (``main_inference_loop``)."""
        return self._python.random() < probability

    def dropout(self, x: torch.Tensor, p: float) -> torch.Tensor:
        """``torch.nn.functional.dropout`` with this seed's generators. They become global: it takes no generator."""
        with self.as_globals():
            return torch.nn.functional.dropout(x, p=p)

    def msa_rows(self, n_row: int, cutoff: int, lower_bound: int) -> torch.Tensor:
        """Indices of the MSA rows that one cycle reads (upstream's ``sample_indices``).

        Args:
            n_row: Number of rows of the MSA.
            cutoff: Maximum number of rows to return; no maximum if it is 0 or less.
            lower_bound: Minimum of the random number of rows.

        Returns:
            A random number of row indices, in random order.
        """
        size = int(torch.randint(low=min(lower_bound, n_row), high=n_row + 1, size=(1,), generator=self._cpu).item())
        rows = torch.randperm(n_row, device=self.device, generator=self._on_device)[:size]
        return rows[:cutoff] if cutoff > 0 else rows

    def normal(self, *shape: int) -> torch.Tensor:
        """Standard normal numbers on the device, float32."""
        return torch.randn(shape, device=self.device, generator=self._on_device)

    def fill(self, x: torch.Tensor) -> None:
        """Fill a tensor with the numbers that :meth:`normal` makes for its shape."""
        if x.is_contiguous():
            x.normal_(generator=self._on_device)
        else:  # in place, the numbers could depend on the strides
            x.copy_(self.normal(*x.shape))

    def rotations(self, n_sample: int) -> np.ndarray:
        """Uniform rotations [N_sample, 3, 3], as upstream's ``uniform_random_rotation`` draws them."""
        return np.asarray(Rotation.random(num=n_sample, random_state=self._numpy).as_matrix())

    @contextmanager
    def as_globals(self) -> Iterator[None]:
        """Make this seed's generators the global ones, for code that draws from global generators.

        On exit, this seed keeps the advanced state, and the global generators get their former state back.
        """
        python_state, numpy_state, cpu_state = random.getstate(), np.random.get_state(), torch.get_rng_state()
        cuda = self.device.type == "cuda"
        device_state = torch.cuda.get_rng_state(self.device) if cuda else None
        random.setstate(self._python.getstate())
        np.random.set_state(self._numpy.get_state())
        torch.set_rng_state(self._cpu.get_state())
        if cuda:
            torch.cuda.set_rng_state(self._on_device.get_state(), self.device)
        try:
            yield
        finally:
            self._python.setstate(random.getstate())
            self._numpy.set_state(np.random.get_state())
            self._cpu.set_state(torch.get_rng_state())
            if device_state is not None:
                self._on_device.set_state(torch.cuda.get_rng_state(self.device))
                torch.cuda.set_rng_state(device_state, self.device)
            random.setstate(python_state)
            np.random.set_state(numpy_state)
            torch.set_rng_state(cpu_state)
