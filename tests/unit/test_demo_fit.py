"""The geometry behind the demo's fit: ``scripts/demo_structure.py`` and the changes that the demo model adds."""

import sys

import biotite.structure as struc
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import cases

from protenix_multiseed.model import demo

sys.path.insert(0, str(cases.REPOSITORY / "scripts"))
from demo_structure import aligned, aligned_errors, complete, lddt, placed


@given(st.integers(0, 1000), st.sampled_from([0.0, 0.5, 30.0]))
def test_structures_are_superposed_as_biotite_does(number, noise):
    torch.manual_seed(number)
    fixed = 10 * torch.randn(40, 3)
    moving = placed(fixed, 1)[0] + noise * torch.randn(40, 3)
    theirs, _ = struc.superimpose(fixed.numpy(), moving.numpy())
    assert np.abs(aligned(moving, fixed).numpy() - theirs).max() < 1e-2


def test_missing_atoms_are_placed_by_their_neighbours():
    torch.manual_seed(1)
    whole = 3 * torch.randn(6, 3)
    moved = placed(whole, 1)[0].numpy()
    made = whole.numpy().copy()
    made[4:] = np.nan
    complete(made, np.arange(6), moved)
    assert np.abs(made - whole.numpy()).max() < 1e-4


def test_a_rotated_structure_has_no_error_and_a_shifted_chain_has():
    torch.manual_seed(2)
    target = 8 * torch.randn(30, 3)
    features = {"atom_to_token_idx": torch.arange(10).repeat_interleave(3)}
    turned = placed(target, 1)[0]
    assert lddt(turned, target).min() == 1
    assert aligned_errors(turned, target, features).max() < 1e-3
    turned[15:] += 5.0
    assert lddt(turned, target).mean() < 0.9
    assert aligned_errors(turned, target, features)[0, 9] == pytest.approx(75**0.5, abs=0.01)


def test_a_model_with_other_layers_is_left_as_it_is():
    model = torch.nn.Linear(3, 2)
    before = model.weight.detach().clone()
    assert not demo.fit(model)
    assert torch.equal(model.weight, before)


def test_changes_are_added_to_the_weights_that_they_name():
    model = torch.nn.Linear(3, 2)
    weight, bias = model.weight.detach().clone(), model.bias.detach().clone()
    left, right = torch.randn(2, 1).half(), torch.randn(1, 3).half()
    thin = {"weight:left": left, "weight:right": right, "bias": torch.ones(2).half()}
    demo.add(model, demo.expand(thin))
    torch.testing.assert_close(model.weight.detach(), weight + left.float() @ right.float())
    torch.testing.assert_close(model.bias.detach(), bias + 1)
