"""Which dtype a part of the network has."""

from types import SimpleNamespace

import pytest
import torch

from protenix_multiseed.model.network import Network
from protenix_multiseed.upstream.models import DEFAULT_MODEL, model_spec

PARTS = ("confidence_head", "sample_diffusion")


def dtypes(model, n_token, precision, device="cuda:0"):
    """The dtypes of confidence head and diffusion network. The device is only named, so no GPU is needed."""
    network = Network(
        module=None, configs=SimpleNamespace(dtype="bf16"), spec=model_spec(model), device=torch.device(device),
        precision=precision,
    )  # fmt: skip
    return tuple(network.dtype_of(part, n_token) for part in PARTS)


@pytest.mark.parametrize("model", [DEFAULT_MODEL, "protenix-v2"])
@pytest.mark.parametrize("n_token", [1, 600, 2560, 2561, 3841])
@pytest.mark.parametrize("device", ["cuda:0", "cpu"])
def test_fast_is_bfloat16_for_every_model_and_size(model, n_token, device):
    assert dtypes(model, n_token, "fast", device) == (torch.bfloat16, torch.bfloat16)


@pytest.mark.parametrize(("model", "n_token", "expected"), [
    (DEFAULT_MODEL, 600, (torch.float32, torch.float32)),
    (DEFAULT_MODEL, 2560, (torch.float32, torch.float32)),
    (DEFAULT_MODEL, 2561, (torch.bfloat16, torch.float32)),
    (DEFAULT_MODEL, 3841, (torch.bfloat16, torch.bfloat16)),
    ("protenix-v2", 600, (torch.bfloat16, torch.float32)),
])  # fmt: skip
def test_reference_is_upstreams_precision(model, n_token, expected):
    assert dtypes(model, n_token, "reference") == expected
    assert dtypes(model, n_token, "reference", "cpu") == (torch.float32, torch.float32)
