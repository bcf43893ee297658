"""A planner for a GPU, with the sizes of a full model."""

from protenix_multiseed.execution.memory import ModelSize, Settings, bytes_of_parts
from protenix_multiseed.execution.plan import Planner
from protenix_multiseed.settings import PlanSettings

MODEL = ModelSize(
    c_z=128, c_s=384, c_m=64, c_outer=32, c_atom=128, c_atompair=16, c_token=768, n_token_block=24, n_token_head=16,
    n_atom_block=6, n_atom_head=4, n_bin=64, c_template=64, c_template_hidden=64, n_weight=368_000_000,
    n_trunk_weight=150_000_000, n_diffusion_weight=140_000_000, n_confidence_weight=12_000_000,
)  # fmt: skip
IN_32_BITS = bytes_of_parts("reference", half=False)
ON_GPU = Settings(n_sample=5, n_step=200, trunk_bytes=2, padding=16, on_gpu=True, **IN_32_BITS)
PLANNER = Planner(
    model=MODEL, memory=ON_GPU, settings=PlanSettings(model="demo", samples=5, precision="reference", max_seeds=20)
)
