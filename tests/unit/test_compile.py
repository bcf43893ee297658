"""Every Triton kernel compiles for a GPU that is not here, at the tiles it runs with; and the probe compiles all that a
run launches, beside the loading of weights.
"""

import os
import subprocess
import sys

import pytest
import torch
from support import cases
from support.jobs import configs_of, network_of, scored

from protenix_multiseed.features.featurize import featurize
from protenix_multiseed.inputs import read_jobs
from protenix_multiseed.kernels import compile as compile_module
from protenix_multiseed.kernels import probe_process
from protenix_multiseed.kernels.base import triton_kernels
from protenix_multiseed.model import demo
from protenix_multiseed.model.weights import build_model
from protenix_multiseed.settings import FeatureSettings, InputRules
from protenix_multiseed.upstream import environment
from protenix_multiseed.upstream.dictionary import EmbeddedDictionary

triton = pytest.importorskip("triton")
from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

CPU = torch.device("cpu")
TYPES = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.int64: "*i64"}
OPTIONS = ("num_warps", "num_stages", "maxnreg")


def specialised(program, arguments):
    """Signature, constants and divisible arguments, as Triton makes them of a launch."""
    signature, constants, divisible = {}, {}, []
    for place, (parameter, value) in enumerate(zip(program.params, arguments, strict=True)):
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


@pytest.mark.parametrize(("capability", "largest"), [(90, 232_448), (80, 166_912)], ids=["H100", "A100"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_every_program_compiles_for_a_gpu_and_fits_its_shared_memory(dtype, capability, largest):
    compiled = set()
    for program, arguments, options in compile_module.launches(triton_kernels(), probe_process.cases_of(CPU, dtype)):
        signature, constants, divisible = specialised(program, arguments)
        kind = repr((program.__name__, constants))
        if kind in compiled:
            continue
        attributes = {(place,): [["tt.divisibility", 16]] for place in divisible}
        source = ASTSource(fn=program, signature=signature, constexprs=constants, attrs=attributes)
        chosen = {name: options[name] for name in OPTIONS if name in options}
        made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=chosen)
        assert "cubin" in made.asm
        assert made.metadata.shared <= largest, (program.__name__, constants)
        compiled.add(kind)
    assert len(compiled) >= 25


@pytest.mark.parametrize("model", [cases.MODEL, "protenix-v2"])
def test_a_run_finds_all_its_kernels_compiled(model):
    """At the widths of Protenix's models, with few blocks. On a CPU all is float32, so types are left out."""
    environment.prepare(EmbeddedDictionary())
    (job,) = read_jobs([cases.EXAMPLE], (1, 2), InputRules(model="m"), EmbeddedDictionary())
    (features,) = featurize(job, FeatureSettings())
    more = {"model.msa_module.n_blocks": 2}
    configs = configs_of(model, cycles=1, steps=2, template=False, rna_msa=False, **more)
    network = network_of(demo.fill(build_model(configs)), configs, model, kernels=triton_kernels(), padding=16)

    def kinds(launches):
        return {
            repr((kernel.__name__, constants, divisible))
            for kernel, arguments, _ in launches
            for _, constants, divisible in [specialised(kernel, arguments)]
        }

    wanted = kinds(compile_module.launches(network.kernels, [lambda _: scored(network, features, sample_chunk=2)]))
    assert len(wanted) > 20
    probed = compile_module.launches(triton_kernels(), probe_process.cases_of(CPU, torch.float32))
    assert wanted - kinds(probed) == set()


AHEAD = """
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
program, arguments, options = wanted[0]
broken = program, (arguments[0].to(torch.complex64), *arguments[1:]), options
ahead.compile_ahead([broken, *wanted], (9, 0))
before = compiled()
driver.set_active(ahead.AbsentGpu((9, 0)))
for program, arguments, options in wanted:
    program.warmup(*arguments, grid=(1,), **options)
print(before, compiled())
"""


def test_what_was_compiled_ahead_is_found_and_what_cannot_be_stops_nothing(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", AHEAD], capture_output=True, text=True, check=True,
        env={**os.environ, "TRITON_CACHE_DIR": str(tmp_path)},
    )  # fmt: skip
    before, after = done.stdout.split()
    assert int(before) >= 6
    assert after == before


def test_all_names_are_made_where_the_kernels_are_imported():
    """Triton 3.6 makes them of whatever was named before, so that one process compiled again what another had."""
    script = (
        "from protenix_multiseed.kernels.ops import _modules; from protenix_multiseed.kernels import device_functions; "
        "found = [vars(module).values() for module in (device_functions, *_modules)]; "
        "jitted = [value for values in found for value in values if hasattr(value, 'params')]; "
        "print(len(jitted) > 20, [value.__name__ for value in jitted if value.hash is None])"
    )
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == "True []"
