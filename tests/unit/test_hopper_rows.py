"""Which arguments the kernels for Hopper GPUs on rows of 128 and 256 channels take, and how they read weights."""

import pytest
import torch
from torch.nn import functional

from protenix_multiseed.kernels.base import Lengths, triton_kernels
from protenix_multiseed.kernels.normed import NormedLinear, round_to_zero_sums
from protenix_multiseed.kernels.operation import Inputs
from protenix_multiseed.kernels.ops import (
    msa_average_hopper,
    msa_average_hopper_128,
    norm_linear_hopper,
    norm_linear_hopper_128,
    transition_hopper,
    transition_hopper_128,
    triangle_factors_hopper,
    triangle_product_hopper_128,
    triangle_update_hopper,
)
from protenix_multiseed.kernels.ops.msa_average import add_gated_average
from protenix_multiseed.kernels.ops.norm_linear import norm_linear
from protenix_multiseed.kernels.ops.transition import add_transition
from protenix_multiseed.kernels.ops.triangle_product import add_triangle, gated_channels
from protenix_multiseed.kernels.rows_hopper import in_eights, in_order, in_turn
from protenix_multiseed.limits import channel_groups

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
    ("gated_channels", 256): triangle_factors_hopper.fits,
    ("gated_channels", 128): triangle_product_hopper_128.factors_fit,
    ("add_triangle", 256): triangle_update_hopper.fits,
    ("add_triangle", 128): triangle_product_hopper_128.update_fits,
    ("add_gated_average", 256): msa_average_hopper.fits,
    ("add_gated_average", 128): msa_average_hopper_128.fits,
}


def zeros(*shape):
    return torch.zeros(shape, dtype=torch.bfloat16)


def arguments_of(name, width, n=4, n_out=None, hidden=128):
    """Arguments of an operation on pairs [2, n, n, width]; those that a test changes come first."""
    z, norm, n_out = zeros(2, n, n, width), (zeros(width), zeros(width)), n_out or width
    lengths, rstd = Lengths.of([n - 1, n], z.device), torch.zeros(2, n, n)
    return {
        "norm_linear": {"x": z, "linear": NormedLinear(norm, zeros(n_out, width)), "rstd": rstd},
        "add_transition": {
            "x": z, "expand": zeros(2 * hidden, width), "contract": zeros(width, hidden), "norm": norm,
        },
        "gated_channels": {
            "z": z, "linear": NormedLinear(norm, zeros(2 * n_out, width)), "lengths": lengths, "rstd": rstd,
        },
        "add_triangle": {
            "z": z, "product": zeros(n_out, 2, n, n), "gate": NormedLinear(norm, zeros(width, width)),
            "out": NormedLinear((zeros(n_out), zeros(n_out)), zeros(width, n_out)), "rstd": rstd,
        },
        "add_gated_average": {
            "x": z, "average": zeros(2, n, n, n_out // 32, 32), "gate": NormedLinear(norm, zeros(n_out, width)),
            "out": zeros(width, n_out), "rstd": rstd,
        },
    }[name]  # fmt: skip


def shifted(x):
    """The same values at an address that is not a multiple of 16 bytes."""
    return torch.cat([x.new_zeros(1), x.flatten()])[1:].view(x.shape)


def strided(x):
    """The same values in memory that is not contiguous."""
    return torch.stack([x, x], dim=-1)[..., 0]


def wrong_norms(norm):
    """Norms of which one part cannot be read."""
    for place in range(2):
        for change in (torch.Tensor.float, strided):
            yield tuple(change(part) if at == place else part for at, part in enumerate(norm))


@pytest.mark.parametrize(("name", "width"), FITS)
def test_each_kernel_takes_only_arguments_that_it_can_read(name, width):
    fits = FITS[name, width]
    assert fits in [taken for taken, _ in OPERATIONS[name]._launches[:2]]  # tried before the general kernel
    good = arguments_of(name, width)
    assert fits(HOPPER, **good)
    assert not fits(GENERAL, **good)
    assert not fits(HOPPER, **arguments_of(name, 384 - width))
    for key, value in good.items():
        if key == "rstd":  # only kernels with a folded norm read it; that of factors can make it
            is_read = width == 256
            assert fits(HOPPER, **{**good, key: strided(value)}) == (not is_read)
            assert fits(HOPPER, **{**good, key: None}) == (not is_read or name == "gated_channels")
        elif isinstance(value, torch.Tensor):
            for wrong in (value.float(), shifted(value), strided(value)):
                assert not fits(HOPPER, **{**good, key: wrong}), key
        elif isinstance(value, NormedLinear):
            for wrong in (value.weight.float(), shifted(value.weight), strided(value.weight)):
                assert not fits(HOPPER, **{**good, key: NormedLinear(value.norm, wrong)}), key
            for wrong in wrong_norms(value.norm):
                assert not fits(HOPPER, **{**good, key: NormedLinear(wrong, value.weight)}), key
        elif isinstance(value, tuple):
            for wrong in wrong_norms(value):
                assert not fits(HOPPER, **{**good, key: wrong}), key


@pytest.mark.parametrize("width", [128, 256])
def test_groups_of_channels_have_the_same_kernel(width):
    for n_pair in (1, 2**20, 2**24, 2**28):
        n_channel = width // channel_groups(n_pair, width, 2**28)
        assert FITS["gated_channels", width](HOPPER, **arguments_of("gated_channels", width, n_out=2 * n_channel))
    assert channel_groups(2**28, width, 2**28) == 4


@pytest.mark.parametrize(
    ("name", "width", "sizes"),
    [
        ("norm_linear", 256, {"n_out": 192}),
        ("norm_linear", 128, {"n_out": 96}),
        ("norm_linear", 128, {"n_out": 448}),
        ("add_transition", 256, {"hidden": 96}),
        ("add_transition", 128, {"hidden": 96}),
        ("gated_channels", 256, {"n_out": 96}),
        ("gated_channels", 256, {"n_out": 64}),
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


def normed_linear(width=256, n_out=300, spread=0.3):
    generator = torch.Generator().manual_seed(0)

    def random(*shape, scale=1.0, shift=0.0):
        return (scale * torch.randn(shape, generator=generator) + shift).to(torch.bfloat16)

    return NormedLinear((random(width, scale=spread, shift=1.0), random(width, scale=0.3)), random(n_out, width) / 16)


@pytest.mark.parametrize("mean", [0.0, 1.0, 30.0])
@pytest.mark.parametrize("spread", [0.0, 0.3])  # without a spread all weights of a size are rounded to the same side
def test_a_folded_norm_is_as_exact_as_a_norm_that_is_rounded(mean, spread):
    linear = normed_linear(spread=spread)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(1000, 256, generator=generator) + mean * torch.randn(1000, 1, generator=generator).sign()
    x = x.to(torch.bfloat16)
    truth = functional.linear(
        functional.layer_norm(x.double(), (256,), *(part.double() for part in linear.norm)), linear.weight.double()
    )
    rstd = Inputs.rstd(x)
    folded = rstd[:, None] * functional.linear(x.float(), linear.folded.float()) + linear.shift
    rounded = functional.layer_norm(x.float(), (256,), *(part.float() for part in linear.norm)).to(torch.bfloat16)
    plain = functional.linear(rounded.float(), linear.weight.float())
    off, plain_off = (
        float((made.to(torch.bfloat16).double() - truth).norm() / truth.norm()) for made in (folded, plain)
    )
    assert off < 1.05 * plain_off
    nearest = (linear.weight.double() * linear.norm[0].double()).float()
    nearest = (nearest - nearest.mean(dim=1, keepdim=True)).to(torch.bfloat16)
    naive = rstd[:, None] * functional.linear(x.float(), nearest.float()) + linear.shift
    if mean == 30.0:  # what the rounding is for
        assert float((naive.double() - truth).norm() / truth.norm()) > 4 * off


def test_rows_of_folded_weights_sum_to_zero_and_weights_move_by_one_step():
    linear = normed_linear()
    exact = linear.weight.double() * linear.norm[0].double()
    exact -= exact.mean(dim=1, keepdim=True)
    assert float(linear.folded.double().sum(dim=1).abs().max()) < 1e-3 / 16  # weights are about 1 / 16
    assert (linear.folded.double().sum(dim=1) == 0).sum() > 0.5 * len(linear)
    step = 2.0 ** (exact.abs().log2().floor() - 7)
    few = (linear.folded.double() - exact).abs() > step  # those that took what was left
    assert few.sum() <= 8 * len(linear)
    assert ((linear.folded.double() - exact).abs() <= 2 * step.amax(dim=1, keepdim=True)).all()


def test_weights_of_zero_stay_zero():
    assert not round_to_zero_sums(torch.zeros(3, 256, dtype=torch.float64)).any()


def test_shifts_have_the_order_of_their_weights():
    linear = normed_linear(n_out=64)
    shifts = (linear.shift, linear.shift_in_eights, linear.shift_in_turn)
    for shift, order in zip(shifts, (in_order, in_eights, in_turn), strict=True):
        rows = torch.as_strided(linear.weight, *order(64, 256)).reshape(64, 256)
        torch.testing.assert_close(shift, (rows.double() @ linear.norm[1].double()).float())
    assert not torch.equal(linear.shift, linear.shift_in_eights)


def test_a_part_of_a_matrix_has_its_rows_of_the_folded_form():
    linear, rows = normed_linear(n_out=64), [3, 4, 19, 20, 35, 36, 51, 52]
    part = linear.part(4, slice(3, 5))
    assert torch.equal(part.weight, linear.weight[rows])
    assert torch.equal(part.folded, NormedLinear(linear.norm, linear.weight[rows]).folded)
    assert torch.equal(part.shift, linear.shift[rows])
    assert len(part) == 8
