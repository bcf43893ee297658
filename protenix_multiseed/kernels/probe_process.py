"""Compare the results of compiled kernels with PyTorch's results.

Usage: ``python -m protenix_multiseed.kernels.probe_process cuda:0 triton``

Prints one line of JSON for each kind of kernels: ``{"triton": "ok"}``, or the reason why the kind cannot be used. Each
line is printed at once. The first line names every kind as ended early, and later lines replace it: a kind may abort
the process. On a Hopper GPU the kind ``hopper`` comes with ``triton``, for the kernels written for these GPUs.
"""

import contextlib
import json
import math
import sys
from collections.abc import Callable, Sequence
from functools import partial

import torch

from protenix_multiseed.kernels.base import can_be_half, torch_kernels, triton_kernels
from protenix_multiseed.kernels.compile import Launch, capability_of, compile_ahead, launches
from protenix_multiseed.kernels.language import HAS_GLUON
from protenix_multiseed.kernels.operation import Case, Inputs
from protenix_multiseed.kernels.ops import operations
from protenix_multiseed.kernels.probe import ENDED_EARLY

HOPPER = (9, 0)  # compute capability
NO_GLUON = "Hopper's kernels need Triton 3.6, which comes with PyTorch 2.11"
TOLERANCE = 0.02  # largest accepted difference, relative to the norm of the result; bfloat16 rounds to 0.004


def main(device_name: str, *kinds: str) -> None:
    """Probe each kind and print its outcome."""
    device, is_hopper = torch.device(device_name), False
    if device.type == "cuda":
        of_nvidia = "triton" in kinds and torch.version.hip is None
        if of_nvidia:
            with contextlib.suppress(Exception):  # optional: later launches compile missing kernels
                torch.set_num_threads(1)
                with capability_of(device) as asked:
                    of_hopper, general = wanted_launches(hopper=HAS_GLUON)
                    capability = asked.result()
                compile_ahead([*(of_hopper if capability == HOPPER else []), *general], capability)
        torch.cuda.set_device(device)
        is_hopper = of_nvidia and torch.cuda.get_device_capability(device) == HOPPER
    tested = (*kinds, *(("hopper",) if is_hopper else ()))
    print(json.dumps(dict.fromkeys(tested, ENDED_EARLY)), flush=True)
    for kind in tested:
        print(json.dumps({kind: outcome_of(kind, device)}), flush=True)


def outcome_of(kind: str, device: torch.device) -> str:
    """``ok``, or the reason why a kind of kernels cannot be used."""
    if kind == "hopper" and not HAS_GLUON:
        return NO_GLUON
    try:
        off = PROBES[kind](device)
    except Exception as error:
        return " ".join(f"{type(error).__name__}: {error}".split())[:300]
    return "ok" if off < TOLERANCE else f"results differ from PyTorch's by {off:.1e}"


def wanted_launches(*, hopper: bool) -> tuple[list[Launch], list[Launch]]:
    """Launches of every Triton kernel that a run on a Hopper GPU, and on any GPU, can need.

    The slowest to compile come first. Without ``hopper``, there are none of the first kind.
    """
    cases = all_cases(torch.device("cpu"))
    general = launches(triton_kernels(), cases)
    of_hopper = launches(triton_kernels(hopper=True), cases) if hopper else []
    return sorted(of_hopper, key=lambda launch: not launch[0].is_gluon()), general


def probe_triton(device: torch.device, *, hopper: bool = False) -> float:
    """The largest relative difference between Triton's and PyTorch's results, over all cases."""
    # So few thread blocks that each processes several tiles, although the tensors are small: at least four, so that
    # every place in shared memory is used again.
    kernels = triton_kernels(hopper=hopper, blocks_at_once=3)
    return max(difference(case(kernels), case(torch_kernels())) for case in all_cases(device))


def probe_cuequivariance(device: torch.device) -> float:
    """The relative difference between cuEquivariance's triangle attention and PyTorch's."""
    from cuequivariance_torch.primitives.triangle import triangle_attention

    generator = torch.Generator(device).manual_seed(0)
    query, key, value = (
        torch.randn(1, 32, 4, 32, 32, device=device, generator=generator, dtype=torch.bfloat16) for _ in range(3)
    )
    bias = torch.randn(1, 1, 4, 32, 32, device=device, generator=generator)
    mask = torch.ones(1, 32, 1, 1, 32, device=device, dtype=torch.bool)
    ours = torch.nn.functional.scaled_dot_product_attention(
        query[0].float(), key[0].float(), value[0].float(), attn_mask=bias[0]
    )
    theirs = triangle_attention(query, key, value, bias, mask=mask, scale=32**-0.5)
    theirs = theirs[0] if isinstance(theirs, Sequence) else theirs
    return difference(theirs.reshape(ours.shape), ours)


def all_cases(device: torch.device) -> list[Case]:
    """The cases of all operations in every dtype that a run can need."""
    dtypes = (torch.bfloat16, torch.float32, *((torch.float16,) if can_be_half() else ()))
    return [case for dtype in dtypes for case in cases_of(device, dtype)]


def cases_of(device: torch.device, dtype: torch.dtype) -> list[Case]:
    """The cases of all operations in one dtype. Only operations of the denoiser have cases in float16."""
    chosen = [operation for operation in operations() if dtype != torch.float16 or operation.has_half]
    found = [operation.cases for operation in chosen if operation.cases is not None]
    return [case for cases in found for case in cases(Inputs(device, dtype))]


def difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Norm of the difference relative to the norm of ``theirs``. Infinity instead of NaN: ``max`` may skip a NaN."""
    found = float((ours.float() - theirs.float()).norm() / theirs.float().norm())
    return found if math.isfinite(found) else math.inf


PROBES: dict[str, Callable[[torch.device], float]] = {
    "triton": probe_triton,
    "hopper": partial(probe_triton, hopper=True),
    "cuequivariance": probe_cuequivariance,
}

if __name__ == "__main__":
    main(*sys.argv[1:])
