"""Every Triton kernel compiles for GPUs that are not present, with the tiles of real runs.

The probe compiles every kernel that a run launches.
"""

import json
import os
import subprocess
import sys

import pytest
import torch
from support import cases
from support.command import write_jobs
from support.jobs import configs_of, network_of, scored

from protenix_multiseed.features.featurize import featurize
from protenix_multiseed.inputs.read import read_jobs
from protenix_multiseed.kernels import compile as compile_module
from protenix_multiseed.kernels import probe_process
from protenix_multiseed.kernels.base import triton_kernels
from protenix_multiseed.kernels.language import HAS_GLUON
from protenix_multiseed.model import demo
from protenix_multiseed.model.network import Network
from protenix_multiseed.model.weights import build_model
from protenix_multiseed.settings import FeatureSettings, InputRules
from protenix_multiseed.upstream import environment
from protenix_multiseed.upstream.dictionary import EmbeddedDictionary

triton = pytest.importorskip("triton")
from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

CPU = torch.device("cpu")
TYPES = {
    torch.float32: "*fp32", torch.float16: "*fp16", torch.bfloat16: "*bf16", torch.int32: "*i32", torch.int64: "*i64",
}  # fmt: skip
OPTIONS = ("num_warps", "num_stages", "maxnreg")


def specialised(kernel, arguments):
    """Signature, constants and arguments divisible by 16, as Triton derives them from a launch."""
    signature, constants, divisible = {}, {}, []
    for place, (parameter, value) in enumerate(zip(kernel.params, arguments, strict=True)):
        is_free = parameter.do_not_specialize
        if (
            parameter.is_constexpr
            or value is None
            or value is True
            or (type(value) is int and value == 1 and not is_free)
        ):
            signature[parameter.name], constants[place,] = "constexpr", value
        elif isinstance(value, torch.Tensor):
            signature[parameter.name] = TYPES[value.dtype]
            divisible.append(place)
        else:
            signature[parameter.name] = "fp32" if isinstance(value, float) else "i32"
            if type(value) is int and value % 16 == 0 and not is_free:
                divisible.append(place)
    return signature, constants, divisible


@pytest.mark.parametrize(("capability", "max_shared_bytes"), [(90, 232_448), (80, 166_912)], ids=["H100", "A100"])
@pytest.mark.parametrize(("dtype", "least"), [(torch.float32, 25), (torch.bfloat16, 25), (torch.float16, 8)], ids=str)
def test_every_kernel_compiles_for_a_gpu_and_fits_its_shared_memory(dtype, least, capability, max_shared_bytes):
    compiled = set()
    for kernel, arguments, options in compile_module.launches(triton_kernels(), probe_process.cases_of(CPU, dtype)):
        signature, constants, divisible = specialised(kernel, arguments)
        kind = repr((kernel.__name__, constants))
        if kind in compiled:
            continue
        attributes = {(place,): [["tt.divisibility", 16]] for place in divisible}
        source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=attributes)
        chosen = {name: options[name] for name in OPTIONS if name in options}
        made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=chosen)
        assert "cubin" in made.asm
        assert made.metadata.shared <= max_shared_bytes, (kernel.__name__, constants)
        compiled.add(kind)
    assert len(compiled) >= least


@pytest.mark.parametrize(("model", "precision", "half"), [
    (cases.MODEL, "reference", True), (cases.MODEL, "reference", False), (cases.MODEL, "fast", True),
    ("protenix-v2", "reference", True),
])  # fmt: skip
def test_the_probe_compiles_every_kernel_that_a_run_launches(model, precision, half, monkeypatch, tmp_path):
    """The widths are those of Protenix's models, with few blocks. The trunk of protenix-v2 is in bfloat16, as on a GPU.

    That of the others is not, because it takes long on a CPU.
    """
    example, in_bfloat16 = cases.EXAMPLE, model == "protenix-v2"
    if in_bfloat16:
        write_jobs(tmp_path, {"a": "MKTAYIAKQR"})
        example = tmp_path / "in.json"
        monkeypatch.setattr(Network, "trunk_dtype", lambda self: torch.bfloat16)
        monkeypatch.setattr(Network, "autocast", lambda self: torch.autocast("cpu", dtype=torch.bfloat16))
    environment.prepare(EmbeddedDictionary())
    (job,) = read_jobs([example], (1, 2), InputRules(model="m"), EmbeddedDictionary())
    (features,) = featurize(job, FeatureSettings())
    more = {"model.msa_module.n_blocks": 2}
    configs = configs_of(model, cycles=1, steps=2, template=False, rna_msa=False, **more)
    filled, kernels = demo.fill(build_model(configs)), triton_kernels(half=half)
    network = network_of(filled, configs, model, kernels=kernels, padding=16, precision=precision)

    def kinds(launches):
        return {
            repr((kernel.__name__, signature, constants, divisible))
            for kernel, arguments, _ in launches
            for signature, constants, divisible in [specialised(kernel, arguments)]
        }

    wanted = kinds(compile_module.launches(kernels, [lambda _: scored(network, features, sample_chunk=2)]))
    assert len(wanted) > 20
    scores_in_bfloat16 = any("add_triangle_kernel" in kind and "bf16" in kind for kind in wanted)
    assert scores_in_bfloat16 == (precision == "fast" or in_bfloat16)
    assert any("local_attention_kernel" in kind and "fp16" in kind for kind in wanted) == (
        half and precision == "reference"
    )
    monkeypatch.setattr(probe_process, "can_be_half", lambda: True)  # as with PyTorch 2.8
    probed = compile_module.launches(triton_kernels(), probe_process.all_cases(CPU))
    assert wanted - kinds(probed) == set()


HOPPER = """
import json
from triton.runtime.driver import driver
from protenix_multiseed.kernels import compile as ahead, probe_process

driver.set_active(ahead.AbsentGpu((9, 0)))
shared = {}
for kernel, arguments, options in probe_process.wanted_launches(hopper=True)[0]:
    if kernel.is_gluon():
        made = kernel.warmup(*arguments, grid=(1,), **options)
        shared[kernel.__name__] = max(shared.get(kernel.__name__, 0), made.metadata.shared)
print(json.dumps(shared))
"""


@pytest.mark.skipif(not HAS_GLUON, reason="no Triton 3.6")
def test_every_hopper_kernel_compiles_and_fits_its_shared_memory():
    found = json.loads(subprocess.check_output([sys.executable, "-c", HOPPER], text=True))
    assert len(found) == 12
    assert max(found.values()) <= 232_448


def test_no_two_processes_compile_the_same_kernel():
    wanted = compile_module.launches(triton_kernels(), probe_process.all_cases(CPU))
    groups = compile_module.together(wanted)
    assert sorted(map(id, wanted)) == sorted(id(launch) for group in groups for launch in group)
    kinds = [
        {repr((kernel.__name__, *specialised(kernel, arguments))) for kernel, arguments, _ in group} for group in groups
    ]
    assert sum(map(len, kinds)) == len(set.union(*kinds))
    assert len(groups) > 0.9 * sum(map(len, kinds))  # different kernels are compiled side by side


COMPILE_AHEAD = """
import os, torch
from pathlib import Path
from triton.runtime.driver import driver
from protenix_multiseed.kernels import compile as ahead, probe_process
from protenix_multiseed.kernels.base import triton_kernels

def compiled():
    return len(list(Path(os.environ["TRITON_CACHE_DIR"]).glob("*/*.cubin")))

torch.set_num_threads(1)
wanted = ahead.launches(triton_kernels(), probe_process.cases_of(torch.device("cpu"), torch.bfloat16))
wanted = [launch for launch in wanted if launch[0].__name__ in ("norm_kernel", "add_triangle_kernel", "swiglu_kernel")]
kernel, arguments, options = wanted[0]
broken = kernel, (arguments[0].to(torch.complex64), *arguments[1:]), options
ahead.compile_ahead([broken, *wanted], (9, 0))
before = compiled()
driver.set_active(ahead.AbsentGpu((9, 0)))
for kernel, arguments, options in wanted:
    kernel.warmup(*arguments, grid=(1,), **options)
print(before, compiled())
"""


def test_kernels_compiled_ahead_are_found_and_a_broken_one_stops_nothing(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", COMPILE_AHEAD], capture_output=True, text=True, check=True,
        env={**os.environ, "TRITON_CACHE_DIR": str(tmp_path)},
    )  # fmt: skip
    before, after = done.stdout.split()
    assert int(before) >= 6
    assert after == before


def test_triton_computes_all_cache_keys_at_import():
    """Regression: keys of Triton 3.6 depend on their order, so that one process recompiled another's kernels."""
    script = (
        "from protenix_multiseed.kernels.ops import _modules; from protenix_multiseed.kernels import device_functions; "
        "found = [vars(module).values() for module in (device_functions, *_modules)]; "
        "jitted = [value for values in found for value in values if hasattr(value, 'params')]; "
        "print(len(jitted) > 20, [value.__name__ for value in jitted if value.hash is None])"
    )
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == "True []"


def test_triton_keeps_the_hash_of_its_files():
    script = (
        "from protenix_multiseed.kernels.language import hash_triton; hash_triton(); "
        "import triton.compiler.compiler as old, triton.runtime.cache as new; "
        "key = getattr(new, 'triton_key', None) or old.triton_key; "
        "print(key.cache_info().misses); key(); print(key.cache_info().misses)"
    )
    assert subprocess.check_output([sys.executable, "-c", script], text=True).split() == ["1", "1"]
