"""The fast stages: each runs all seeds of a batch at once, and is tested against its reference twin."""

from protenix_multiseed.model.fast.conditioning import prepare_conditioning
from protenix_multiseed.model.fast.confidence import score
from protenix_multiseed.model.fast.sampler import sample
from protenix_multiseed.model.fast.trunk import run_trunk
from protenix_multiseed.model.stages import Stages

FAST = Stages(run_trunk=run_trunk, prepare_conditioning=prepare_conditioning, sample=sample, score=score)

__all__ = ["FAST"]
