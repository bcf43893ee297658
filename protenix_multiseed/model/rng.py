"""The random numbers of one (job, seed): the only file of the engine that draws.

Upstream draws from global generators, in an order that interleaves Python's, numpy's, and torch's on the CPU and on the
device. :class:`SeedRng` holds one seed's own copies of them, so that seeds advance side by side and none sees another's
draws. Its methods are upstream's draws by name; :meth:`SeedRng.as_globals` lends the copies to upstream's own code.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from protenix_multiseed.types import SeedFeatures


class SeedRng:
    """One seed's generators, in the state in which upstream's model begins to draw: after featurizing this job alone.

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
        """``torch.nn.functional.dropout``, which takes no generator: it is lent this seed's."""
        with self.as_globals():
            return torch.nn.functional.dropout(x, p=p)

    def msa_rows(self, n_row: int, cutoff: int, lower_bound: int) -> torch.Tensor:
        """Rows of the MSA that one cycle reads (``sample_indices``): a random number of them, in random order."""
        size = int(torch.randint(low=min(lower_bound, n_row), high=n_row + 1, size=(1,), generator=self._cpu).item())
        rows = torch.randperm(n_row, device=self.device, generator=self._on_device)[:size]
        return rows[:cutoff] if cutoff > 0 else rows

    def normal(self, *shape: int) -> torch.Tensor:
        """Standard normal numbers on the device, float32."""
        return torch.randn(shape, device=self.device, generator=self._on_device)

    def rotations(self, n_sample: int) -> np.ndarray:
        """Uniform rotations [N_sample, 3, 3], as upstream's ``uniform_random_rotation`` draws them."""
        return np.asarray(Rotation.random(num=n_sample, random_state=self._numpy).as_matrix())

    @contextmanager
    def as_globals(self) -> Iterator[None]:
        """Lend this seed's generators to code that draws from the global ones, and keep the state it leaves them in."""
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
