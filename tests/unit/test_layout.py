import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from protenix_multiseed.features.featurize import msa_rows
from protenix_multiseed.features.layout import compact_constraint, compact_templates, shrink


def test_rows_of_gaps_and_repeated_rows_of_a_chain_do_not_count():
    chain = np.array([1, 1, 2, 3])
    msa = np.array([[5, 6, 7, 20], [31, 6, 31, 31], [31, 31, 8, 31], [31, 31, 31, 31], [5, 31, 9, 31]])
    assert msa_rows(np.concatenate([msa, msa[:2]]), chain).tolist() == [3, 3, 3, 1]


@given(st.lists(st.integers(-(2**62), 2**62)))
def test_shrink_keeps_values(values):
    array = np.array(values, dtype=np.int64)
    assert np.array_equal(shrink(array), array)


@given(st.lists(st.integers(0, 255), min_size=1))
def test_shrink_stores_small_values_in_one_byte(values):
    assert shrink(np.array(values, dtype=np.int64)).itemsize == 1


def test_empty_templates_keep_only_their_residue_types():
    aatype = np.array([[31, 31], [0, 0]])
    made = compact_templates(aatype, np.zeros((2, 2, 24, 3)), np.zeros((2, 2, 24)))
    assert list(made) == ["template_aatype"]
    assert np.array_equal(made["template_aatype"], aatype)


def test_constraints_of_zeros_are_left_out():
    made = compact_constraint({"contact": torch.zeros(2, 2, 2), "pocket": torch.ones(2, 2, 1)})
    assert list(made) == ["constraint:pocket"]
