"""Every Triton program compiles for a GPU that is not here, at the tiles it runs with; and all that a run launches is
compiled by the probe, beside the loading of weights.
"""

import os
import subprocess
import sys

import pytest
import torch
from support import cases

from protenix_multiseed import upstream
from protenix_multiseed.dictionary import EmbeddedDictionary
from protenix_multiseed.features.featurize import featurize
from protenix_multiseed.inputs import read_jobs
from protenix_multiseed.inputs.check import InputRules
from protenix_multiseed.model import demo
from protenix_multiseed.model.fast import FAST
from protenix_multiseed.model.kernels import ahead, probe
from protenix_multiseed.model.stages import Network, run_stages
from protenix_multiseed.model.weights import build_model
from protenix_multiseed.types import FeatureSettings

triton = pytest.importorskip("triton")
from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from protenix_multiseed.model.kernels.fused import FusedKernels  # noqa: E402

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
    for program, arguments, options in ahead.launches(FusedKernels(), probe.operations(CPU, dtype)):
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
def test_a_run_finds_all_its_programs_compiled(model):
    """At the widths of Protenix's models, with few blocks. On a CPU all is float32, so types are left out."""
    upstream.prepare(EmbeddedDictionary())
    rules = InputRules(model="m", rna_msa=False, template=False)
    (job,) = read_jobs([cases.EXAMPLE], (1, 2), rules, EmbeddedDictionary())
    (features,) = featurize(job, FeatureSettings())
    configs = upstream.build_configs(
        model=model, cycles=1, steps=2, samples=2, msa=True, template=False, rna_msa=False, guidance=False,
        kernels="torch", overrides={**cases.SMALL, "model.msa_module.n_blocks": 2},
    )  # fmt: skip
    network = Network(
        module=demo.fill(build_model(configs)), configs=configs, name=model, device=CPU, kernels=FusedKernels(),
        padding=16,
    )  # fmt: skip

    def run(kernels):
        run_stages(FAST, network, features, features.seeds, 2, lambda *_: None)

    def kinds(launches):
        return {
            repr((program.__name__, constants, divisible))
            for program, arguments, _ in launches
            for _, constants, divisible in [specialised(program, arguments)]
        }

    wanted = kinds(ahead.launches(network.kernels, [run]))
    assert len(wanted) > 20
    assert wanted - kinds(ahead.launches(FusedKernels(), probe.operations(CPU, torch.float32))) == set()


AHEAD = """
import os, torch
from pathlib import Path
from triton.runtime.driver import driver
from protenix_multiseed.model.kernels import ahead, probe
from protenix_multiseed.model.kernels.fused import FusedKernels

def compiled():
    return len(list(Path(os.environ["TRITON_CACHE_DIR"]).glob("*/*.cubin")))

torch.set_num_threads(1)
wanted = ahead.launches(FusedKernels(), probe.operations(torch.device("cpu"), torch.bfloat16))
wanted = [launch for launch in wanted if launch[0].__name__ in ("norm", "add_triangle", "swiglu")]
program, arguments, options = wanted[0]
broken = program, (arguments[0].to(torch.complex64), *arguments[1:]), options
ahead.compile_ahead([broken, *wanted], (9, 0))
before = compiled()
driver.set_active(ahead.Elsewhere((9, 0)))
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


def test_all_names_are_made_where_the_programs_are_imported():
    """Triton 3.6 makes them of whatever was named before, so that one process compiled again what another had."""
    script = (
        "from protenix_multiseed.model.kernels import source; programs = vars(source).items(); "
        "print([name for name, program in programs if hasattr(program, 'params') and program.hash is None])"
    )
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == "[]"
