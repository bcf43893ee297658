"""Which arguments the kernels for Hopper GPUs on rows of 128 and 256 channels take, and how they read weights."""

import pytest
import torch

from protenix_multiseed.kernels.base import Lengths, triton_kernels
from protenix_multiseed.kernels.ops import (
    msa_average_hopper,
    msa_average_hopper_128,
    norm_linear_hopper,
    norm_linear_hopper_128,
    transition_hopper,
    transition_hopper_128,
    triangle_product_hopper,
    triangle_product_hopper_128,
)
from protenix_multiseed.kernels.ops.msa_average import add_gated_average
from protenix_multiseed.kernels.ops.norm_linear import norm_linear
from protenix_multiseed.kernels.ops.transition import add_transition
from protenix_multiseed.kernels.ops.triangle_product import add_triangle, gated_channels
from protenix_multiseed.kernels.rows_hopper import in_eights, in_order, in_turn

HOPPER, GENERAL = triton_kernels(hopper=True), triton_kernels()
OPERATIONS = {
    "norm_linear": norm_linear,
    "add_transition": add_transition,
    "gated_channels": gated_channels,
    "add_triangle": add_triangle,
    "add_gated_average": add_gated_average,
}
# Operation and channels of a row -> whether the kernel for these rows takes the arguments.
FITS = {
    ("norm_linear", 256): norm_linear_hopper.fits,
    ("norm_linear", 128): norm_linear_hopper_128.fits,
    ("add_transition", 256): transition_hopper.fits,
    ("add_transition", 128): transition_hopper_128.fits,
    ("gated_channels", 256): triangle_product_hopper.factors_fit,
    ("gated_channels", 128): triangle_product_hopper_128.factors_fit,
    ("add_triangle", 256): triangle_product_hopper.update_fits,
    ("add_triangle", 128): triangle_product_hopper_128.update_fits,
    ("add_gated_average", 256): msa_average_hopper.fits,
    ("add_gated_average", 128): msa_average_hopper_128.fits,
}


def zeros(*shape):
    return torch.zeros(shape, dtype=torch.bfloat16)


def arguments_of(name, width, n=4, n_out=None, hidden=128):
    """Arguments of an operation on pairs [2, n, n, width]; those that a test changes come first."""
    z, norm, n_out = zeros(2, n, n, width), (zeros(width), zeros(width)), n_out or width
    lengths = Lengths.of([n - 1, n], z.device)
    return {
        "norm_linear": {"x": z, "weight": zeros(n_out, width), "norm": norm},
        "add_transition": {
            "x": z, "expand": zeros(2 * hidden, width), "contract": zeros(width, hidden), "norm": norm,
        },
        "gated_channels": {"z": z, "weight": zeros(2 * n_out, width), "norm": norm, "lengths": lengths},
        "add_triangle": {
            "z": z, "product": zeros(n_out, 2, n, n), "gate": zeros(width, width), "out": zeros(width, n_out),
            "norm": norm, "norm_out": (zeros(n_out), zeros(n_out)),
        },
        "add_gated_average": {
            "x": z, "average": zeros(2, n, n, n_out // 32, 32), "gate": zeros(n_out, width),
            "out": zeros(width, n_out), "norm": norm,
        },
    }[name]  # fmt: skip


def shifted(x):
    """The same values at an address that is not a multiple of 16 bytes."""
    return torch.cat([x.new_zeros(1), x.flatten()])[1:].view(x.shape)


def strided(x):
    """The same values in memory that is not contiguous."""
    return torch.stack([x, x], dim=-1)[..., 0]


@pytest.mark.parametrize(("name", "width"), FITS)
def test_each_kernel_takes_only_arguments_that_it_can_read(name, width):
    fits = FITS[name, width]
    assert fits in [taken for taken, _ in OPERATIONS[name]._launches[:2]]  # tried before the general kernel
    good = arguments_of(name, width)
    assert fits(HOPPER, **good)
    assert not fits(GENERAL, **good)
    assert not fits(HOPPER, **arguments_of(name, 384 - width))
    for key, value in good.items():
        if isinstance(value, torch.Tensor):
            for wrong in (value.float(), shifted(value), strided(value)):
                assert not fits(HOPPER, **{**good, key: wrong}), key
        elif isinstance(value, tuple):
            for place in range(2):
                for change in (torch.Tensor.float, strided):
                    wrong = tuple(change(part) if at == place else part for at, part in enumerate(value))
                    assert not fits(HOPPER, **{**good, key: wrong}), (key, place)


@pytest.mark.parametrize(
    ("name", "width", "sizes"),
    [
        ("norm_linear", 256, {"n_out": 192}),
        ("norm_linear", 128, {"n_out": 96}),
        ("norm_linear", 128, {"n_out": 448}),
        ("add_transition", 256, {"hidden": 96}),
        ("add_transition", 128, {"hidden": 96}),
        ("gated_channels", 256, {"n_out": 96}),
        ("gated_channels", 256, {"n": 3}),
        ("gated_channels", 128, {"n_out": 96}),
        ("gated_channels", 128, {"n_out": 320}),
        ("gated_channels", 128, {"n": 3}),
        ("add_triangle", 256, {"n_out": 128}),
        ("add_triangle", 256, {"n": 3}),
        ("add_triangle", 128, {"n_out": 64}),
        ("add_triangle", 128, {"n": 3}),
        ("add_gated_average", 256, {"n_out": 128}),
        ("add_gated_average", 128, {"n_out": 64}),
    ],
)
def test_other_sizes_go_to_the_general_kernel(name, width, sizes):
    assert not FITS[name, width](HOPPER, **arguments_of(name, width, **sizes))


def test_views_of_weights_have_the_rows_in_the_order_of_the_products():
    """A thread holds columns 2 t, 2 t + 1 of every 8 of a product."""
    weight = torch.arange(64)[:, None].repeat(1, 256)

    def rows_of(view):
        return torch.as_strided(weight, *view(*weight.shape)).reshape(64, 256)[:, 0]

    assert torch.equal(rows_of(in_order), weight[:, 0])
    rows = rows_of(in_eights)
    for thread in range(4):
        held = [8 * block + 2 * thread + at for block in range(4) for at in range(2)]
        assert rows[held].tolist() == list(range(8 * thread, 8 * thread + 8))
    rows = rows_of(in_turn)
    assert torch.equal(rows.view(4, 2, 8)[:, 0].flatten(), torch.arange(32))
    assert torch.equal(rows.view(4, 2, 8)[:, 1].flatten(), torch.arange(32, 64))
