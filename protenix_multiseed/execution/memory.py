"""Estimate the device memory of a batch from its sizes alone.

The estimate is a sum over named tensors. All tensors of one stage are in memory together. The peak is the sum of the
largest stage and the tensors that live through all stages.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

from protenix_multiseed.limits import (
    CUDA_GRAPH_MAX_KEPT_BYTES,
    CUDA_GRAPH_MAX_KEPT_BYTES_ROOMY,
    CUDA_GRAPH_MAX_PAIRS,
    CUDA_GRAPH_MAX_PAIRS_ROOMY,
    FOLDED_CHANNELS,
    KEY_BLOCK,
    MAX_PAIR_ELEMENTS_GPU,
    MAX_PAIR_ELEMENTS_GPU_ROOMY,
    MAX_TEMPORARY_ELEMENTS_CPU,
    MAX_TEMPORARY_ELEMENTS_GPU,
    channel_groups,
    fewest_channels,
    samples_scored_at_once,
)
from protenix_multiseed.types import Sizes

MARGIN = 0.92  # share of the free memory that plans use; the rest is for fragmentation and other programs
_WORKSPACE = 128 * 2**20  # bytes of workspaces for matrix products
_WINDOW_QUERIES, _WINDOW_KEYS = 32, 128  # query atoms and key atoms of one local attention window


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSize:
    """The widths and numbers of weights of a model that memory depends on.

    Attributes:
        n_weight: Weights of the whole model, held in float32.
        n_trunk_weight: Weights of the Pairformer, MSA and template blocks, held a second time in the trunk's dtype.
        n_diffusion_weight: Weights of the diffusion transformers, held a second time in their dtype.
        c_template_hidden: Channels of the triangle updates of templates.
        n_confidence_weight: Weights of the confidence head's Pairformer blocks, held a second time in their dtype.
    """

    c_z: int
    c_s: int
    c_m: int
    c_outer: int
    c_atom: int
    c_atompair: int
    c_token: int
    n_token_block: int
    n_token_head: int
    n_atom_block: int
    n_atom_head: int
    n_bin: int
    c_template: int
    c_template_hidden: int
    n_weight: int
    n_trunk_weight: int
    n_diffusion_weight: int
    n_confidence_weight: int

    @classmethod
    def of(cls, configs: Any, module: Any) -> "ModelSize":
        """Read the sizes from upstream's configuration and the built model. Its weights need not be loaded."""
        model = configs.model
        diffusion = module.diffusion_module
        trunk = [module.pairformer_stack, module.msa_module, module.template_embedder]
        template_blocks = module.template_embedder.pairformer_stack.blocks[: model.template_embedder.n_blocks]
        transformers = [
            diffusion.diffusion_transformer,
            diffusion.atom_attention_encoder.atom_transformer,
            diffusion.atom_attention_decoder.atom_transformer,
        ]
        return cls(
            c_z=module.confidence_head.c_z,
            c_s=module.confidence_head.c_s,
            c_m=model.msa_module.c_m,
            c_outer=module.msa_module.blocks[0].c_hidden if len(module.msa_module.blocks) else 0,
            c_atom=model.diffusion_module.c_atom,
            c_atompair=model.diffusion_module.c_atompair,
            c_token=model.diffusion_module.c_token,
            n_token_block=model.diffusion_module.transformer.n_blocks,
            n_token_head=model.diffusion_module.transformer.n_heads,
            n_atom_block=model.diffusion_module.atom_encoder.n_blocks + model.diffusion_module.atom_decoder.n_blocks,
            n_atom_head=model.diffusion_module.atom_encoder.n_heads,
            n_bin=module.confidence_head.b_pae,
            c_template=model.template_embedder.c if model.template_embedder.n_blocks else 0,
            c_template_hidden=max((block.tri_mul_out.linear_a_p.out_features for block in template_blocks), default=0),
            n_weight=_count(module),
            n_trunk_weight=sum(_count(part) for part in trunk),
            n_diffusion_weight=sum(_count(part) for part in transformers),
            n_confidence_weight=_count(module.confidence_head.pairformer_stack),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a batch runs: the settings that memory depends on.

    Attributes:
        n_sample: Diffusion samples per seed.
        n_step: Diffusion steps. The noise of all steps is drawn beforehand.
        trunk_bytes, confidence_bytes: Bytes of one number in the trunk, and in the confidence head's Pairformer.
        factor_bytes, row_bytes: Bytes of one number in the diffusion network: in factors of products, and in the rows
            that its blocks update.
        sampling_full_precision_max_tokens: With more tokens, numbers of the diffusion network take at most
            ``trunk_bytes``.
        confidence_full_precision_max_tokens: With more tokens, numbers of the confidence head's Pairformer take at most
            ``trunk_bytes``.
        padding: The number of tokens is padded to a multiple of this.
        on_gpu: Whether the device is a GPU. On a GPU, loops are captured as CUDA graphs and kept for the next batch,
            and chunks are larger.
        fused: Whether Triton kernels run. They keep temporaries on the chip that PyTorch writes to memory.
        folds: Whether kernels for Hopper GPUs may run. Those for wide pairs have weights with norms folded in.
        roomy: Whether a batch on a GPU uses larger chunks, and captures and keeps larger CUDA graphs.
    """

    n_sample: int
    n_step: int
    trunk_bytes: int
    factor_bytes: int
    row_bytes: int
    confidence_bytes: int
    sampling_full_precision_max_tokens: int = sys.maxsize
    confidence_full_precision_max_tokens: int = sys.maxsize
    padding: int = 1
    on_gpu: bool = False
    fused: bool = True
    folds: bool = True
    roomy: bool = False

    @property
    def pair_elements(self) -> int:
        """Maximum number of elements in one tensor of an update of the pair representation on a GPU."""
        return MAX_PAIR_ELEMENTS_GPU_ROOMY if self.roomy else MAX_PAIR_ELEMENTS_GPU


class PartBytes(TypedDict):
    """The settings that depend on the precision."""

    factor_bytes: int
    row_bytes: int
    confidence_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryEstimate:
    """Estimated bytes of each named tensor, by stage.

    Attributes:
        resident: Tensors that live through all stages.
        stages: Tensors that each stage holds in addition.
    """

    resident: Mapping[str, int]
    stages: Mapping[str, Mapping[str, int]]

    @property
    def peak_stage(self) -> str:
        """The stage that holds the most bytes."""
        return max(self.stages, key=lambda name: sum(self.stages[name].values()))

    @property
    def peak_bytes(self) -> int:
        """Peak bytes of the whole batch."""
        return self.peak_bytes_of(self.peak_stage)

    def peak_bytes_of(self, stage: str) -> int:
        """Return the peak bytes over the stages whose names start with ``stage``, including the resident tensors."""
        held = max(sum(held.values()) for name, held in self.stages.items() if name.startswith(stage))
        return sum(self.resident.values()) + held


def estimate_peak_bytes(
    sizes: Sizes, *, seeds: int, sample_chunk: int, settings: Settings, model: ModelSize, jobs: int = 1
) -> MemoryEstimate:
    """Estimate the memory of a batch on the fast path.

    Args:
        sizes: Sizes of the job, or sizes to which the jobs of the batch are padded.
        seeds: Number of seeds in the batch, of all jobs.
        sample_chunk: Number of samples of each seed that run at once.
        settings: How the batch runs.
        model: Sizes of the model.
        jobs: Number of jobs in the batch. Seeds of one job share their features.
    """
    n = -(-sizes.n_token // settings.padding) * settings.padding
    pairs, atoms, rows = n * n, sizes.n_atom, sizes.n_msa
    is_fused = settings.on_gpu and settings.fused
    biases = n * -(-n // KEY_BLOCK) * KEY_BLOCK if is_fused else pairs
    trunk, confidence = settings.trunk_bytes, settings.confidence_bytes
    factor, row = settings.factor_bytes, settings.row_bytes
    samples = settings.n_sample
    if sizes.n_token > settings.sampling_full_precision_max_tokens:
        factor, row = min(factor, trunk), min(row, trunk)
    if sizes.n_token > settings.confidence_full_precision_max_tokens:
        confidence = min(confidence, trunk)
    windows = -(-atoms // _WINDOW_QUERIES) * _WINDOW_QUERIES * _WINDOW_KEYS
    pair = seeds * pairs * model.c_z * trunk
    folds = is_fused and settings.folds and model.c_z == FOLDED_CHANNELS
    resident = {
        "weights": 4 * model.n_weight,
        "workspaces": _WORKSPACE if settings.on_gpu else 0,
        "weights in the trunk's type": trunk * model.n_trunk_weight,
        "weights of the diffusion transformers, joined": (9 * factor + row) * model.n_diffusion_weight // 10,
        "weights of the confidence head, joined": confidence * model.n_confidence_weight,
        "weights with norms folded in": 4 * (model.n_trunk_weight + model.n_confidence_weight) // 7 * folds,
        "bonds": jobs * pairs * 5,
        "MSA": jobs * rows * n * 16,
        "atom features": jobs * atoms * 1600 + windows * (3 + 1 + 1) * 4 * (jobs + seeds),
        "trunk output": pair + seeds * n * (model.c_s * trunk + 449 * 4),
    }
    elements = MAX_TEMPORARY_ELEMENTS_GPU if settings.on_gpu else MAX_TEMPORARY_ELEMENTS_CPU
    most_rows = elements // (8 * model.c_z)
    products = 1 if is_fused else 2  # without Triton, the outer products are also copied into the order of pairs
    # These tensors exist in addition to z. z is counted as the trunk output: the two exist together only after all
    # other tensors are freed.
    kept = {"z_init": pair, "templates, projected": jobs * sizes.n_template * pairs * model.c_template * trunk}
    template = seeds * pairs * model.c_template
    updates = _triangle_bytes(seeds * pairs, model.c_z, trunk, settings)
    msa = {"MSA of every seed": seeds * rows * n * model.c_m * trunk}
    scored = min(sample_chunk, samples_scored_at_once(sizes.n_token))
    sample_pair = scored * pairs * model.c_z * confidence
    logits = scored * pairs * model.n_bin * 4  # of PAE or PDE
    scores = {"confidence of every seed": seeds * samples * pairs * 3 * 4}
    sample_pairs = scores | {"pairs of the samples": sample_pair}
    shared_by_steps = {
        "token attention biases": model.n_token_block * seeds * model.n_token_head * biases * factor,
        "atom attention biases": model.n_atom_block * seeds * model.n_atom_head * windows * factor,
        "atom pairs": seeds * windows * model.c_atompair * 4,
        "atom conditioning": model.n_atom_block * seeds * atoms * 8 * model.c_atom * factor,
        "noise of all steps": (settings.n_step + 3) * seeds * samples * atoms * 3 * 4,
    }
    of_atom = (model.c_token + 3 * model.c_atom) * row + 7 * model.c_atom * factor
    step = {
        "atoms of a step": seeds * sample_chunk * atoms * of_atom,
        "tokens of a step": seeds * sample_chunk * n * (4 * factor + 2 * row) * model.c_token,
    }
    pair_cond = seeds * pairs * model.c_z * 4
    if settings.on_gpu:
        loop = sum(shared_by_steps.values()) - shared_by_steps["atom pairs"]
        # Loops with larger tensors are not kept. They still count here, up to the limit, because planning needs an
        # estimate that never falls when seeds are added.
        of_step = sum(step.values())  # a graph keeps the working memory of a step
        resident["last batch's steps and their graph"] = (
            min(loop, CUDA_GRAPH_MAX_KEPT_BYTES_ROOMY) + of_step
            if settings.roomy
            else min(loop + of_step, CUDA_GRAPH_MAX_KEPT_BYTES * 5 // 4)
        )
        small = min(seeds * pairs, CUDA_GRAPH_MAX_PAIRS_ROOMY if settings.roomy else CUDA_GRAPH_MAX_PAIRS)
        resident["last batch's trunk and its graph"] = small * model.c_z * trunk + _triangle_bytes(
            small, model.c_z, trunk, settings
        )
    stages = {
        # The pair representation of a template is narrow, but the updates of its blocks need not be.
        "trunk, templates": kept
        | {
            "base and template": 2 * template * trunk,
            "sum": template * 4,
            "updates": _triangle_bytes(seeds * pairs, model.c_template_hidden, trunk, settings),
        },
        "trunk, recycling": kept
        | {"update": pair, "update of one seed with dropout, and its mask": pairs * model.c_z * (trunk + 1)},
        "trunk, triangle product": kept
        | msa
        | {
            "weights of the MSA's average, and attention biases": 16 * seeds * pairs * trunk,
            "deviations of pairs before and after an update, and the next biases": 24 * seeds * pairs * folds,
            "updates": updates,
        },
        "trunk, MSA": kept
        | msa
        | {
            "rows of one seed, projected": rows * n * model.c_m * trunk,
            "outer products": products * min(pairs * model.c_outer**2, max(elements, n * model.c_outer**2)) * trunk,
        },
        "conditioning": {
            "pair_cond": pair_cond,
            "pairs for the atoms": 2 * seeds * pairs * model.c_atompair * 4,
            "rows concatenated, normed and expanded": min(pairs, most_rows) * (139 + 9 * model.c_z) * 4,
            "atom pairs": 2 * shared_by_steps["atom pairs"],
        },
        "sample, preparing": shared_by_steps
        | {
            "pair_cond": pair_cond,
            "atom pairs": 2 * shared_by_steps["atom pairs"],
            "rows normed and cast": min(seeds * pairs, 4 * most_rows) * model.c_z * (4 + factor % 4),
        },
        "sample": shared_by_steps | step,
        "score, contacts": scores | {"logits and probabilities": pairs * model.n_bin * (2 * trunk + 8)},
        "score, pairs": sample_pairs | {"rows embedded": min(scored * pairs, 2 * most_rows) * 4 * model.c_z * 4},
        "score, triangle product": sample_pairs
        | {
            "updates": _triangle_bytes(scored * pairs, model.c_z, confidence, settings),
            "deviations of pairs before and after an update, and the next biases": 24 * scored * pairs * folds,
        },
        "score, logits": sample_pairs
        | {"rows normed": min(scored * pairs, 2 * most_rows) * 4 * model.c_z * 4, "logits of PAE and PDE": 2 * logits},
        "score, summary": scores | {"logits, probabilities and their copy": 4 * logits},
    }
    if not is_fused:
        hidden = (8 + 4) * model.c_z  # elements of one token pair in a transition: expanded and gated
        in_trunk, in_score = (min(n_pair, most_rows) * hidden for n_pair in (seeds * pairs, scored * pairs))
        stages |= {
            "trunk, transition": kept | {"rows expanded and gated": in_trunk * trunk},
            "score, transition": sample_pairs | {"rows expanded and gated": in_score * confidence},
        }
    return MemoryEstimate(resident=resident, stages=stages)


def bytes_of_parts(precision: str, *, half: bool) -> PartBytes:
    """Return the settings that depend on the precision.

    Args:
        half: Whether factors of products that upstream computes in TF32 are in float16.
    """
    if precision == "fast":
        return {"factor_bytes": 2, "row_bytes": 2, "confidence_bytes": 2}
    return {"factor_bytes": 2 if half else 4, "row_bytes": 4, "confidence_bytes": 4}


def _triangle_bytes(n_pair: int, width: int, n_byte: int, settings: Settings) -> int:
    """Bytes that an update of a pair representation holds at most, beside the pair representation.

    Large updates on a GPU are made in chunks: attention in chunks of rows, products in groups of channels. The bytes
    never fall when pairs are added.

    Args:
        n_pair: Token pairs of all seeds.
        width: Channels of the product, and of the queries of all heads.
        n_byte: Bytes of one number.
    """
    if not settings.on_gpu:  # both gated factors, their transposed copy and the product
        return 4 * n_pair * width * n_byte
    one, most = n_pair * width, settings.pair_elements
    groups = channel_groups(n_pair, width, most)
    factors = max(min(2 * one, most), 2 * n_pair * fewest_channels(width))
    # The product is made after its factors, or, in groups of channels, beside them.
    product = one if settings.fused or groups > 1 else 0
    # Without Triton, factors are made in chunks of rows: the normed z and all projections of two chunks.
    rows = 0 if settings.fused else 5 * one if 4 * one <= most else most * (8 + groups) // 4
    # Query, key, value and attention output. A chunk also has a copy of its columns, but there are at least two of even
    # size: they hold less than the factors and the product of the same pairs.
    attention = min(3 * one, most) * 4 // 3
    return max(factors + product + rows, attention) * n_byte


def _count(module: Any) -> int:
    return sum(weight.numel() for weight in module.parameters())
