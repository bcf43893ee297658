"""Every Triton program compiles for a GPU that is not here, at the tiles it would run with."""

import pytest
import torch

from protenix_multiseed.model.kernels import probe

triton = pytest.importorskip("triton")
from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

TYPES = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.int64: "*i64"}
OPTIONS = {"num_warps", "num_stages", "maxnreg"}


class Recorder:
    """Stands in for a program and keeps what it would be compiled with."""

    def __init__(self, program, kept):
        self.program, self.kept = program, kept

    def __getitem__(self, grid):
        def launch(*arguments, **options):
            self.kept.append((self.program, arguments, options))

        return launch


def compile_for_hopper(program, arguments, options):
    signature, constants, attributes = {}, {}, {}
    for place, (parameter, value) in enumerate(zip(program.params, arguments, strict=True)):
        is_constant = parameter.is_constexpr or value is None or value is True or (type(value) is int and value == 1)
        if is_constant:
            signature[parameter.name], constants[place,] = "constexpr", value
        elif isinstance(value, torch.Tensor):
            signature[parameter.name] = TYPES[value.dtype]
            attributes[place,] = [["tt.divisibility", 16]]
        else:
            signature[parameter.name] = "fp32" if isinstance(value, float) else "i32"
            if isinstance(value, int) and value % 16 == 0:
                attributes[place,] = [["tt.divisibility", 16]]
    source = ASTSource(fn=program, signature=signature, constexprs=constants, attrs=attributes)
    return triton.compile(
        source, target=GPUTarget("cuda", 90, 32), options={k: options[k] for k in OPTIONS & set(options)}
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_every_program_compiles_for_a_gpu(dtype, monkeypatch):
    from protenix_multiseed.model.kernels import fused

    kept = []
    programs = {name: program for name, program in vars(fused.source).items() if hasattr(program, "params")}
    with monkeypatch.context() as recording:
        for name, program in programs.items():
            recording.setattr(fused.source, name, Recorder(program, kept))
        for run in probe.operations(torch.device("cpu"), dtype):
            run(fused.FusedKernels())
    for program, arguments, options in kept:
        assert "cubin" in compile_for_hopper(program, arguments, options).asm
    # All but those that others call: each program that is launched somewhere is launched by the probe.
    assert {program.__name__ for program, *_ in kept} == {
        "norm", "modulated_norm", "add_modulated", "swiglu", "norm_linear", "pair_bias", "gated_channels",
        "add_triangle", "add_transition", "add_outer", "head_values", "add_gated_average", "attention", "mean_of_atoms",
        "local_attention",
    }  # fmt: skip
