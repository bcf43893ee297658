"""The draws of one (job, seed), in upstream's order."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from protenix_multiseed.types import SeedFeatures


@contextmanager
def global_streams(seed: SeedFeatures) -> Iterator[None]:
    """Set every global generator to where upstream's model finds it, for this job alone in its file.

    Upstream's runner seeds Python, numpy, and torch once for every device; featurization then draws from Python's,
    numpy's and torch's CPU generator, and the model goes on from there. The generators are put back afterwards.
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed.seed)
        torch.set_rng_state(torch.from_numpy(seed.torch_state.copy()))
        random.setstate(seed.python_state)
        np.random.set_state(seed.numpy_state)
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)
