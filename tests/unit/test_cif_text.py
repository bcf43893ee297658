"""Tables of mmCIF files: the same text as biotite's own method makes, which takes longer."""

import pytest
from biotite.structure.io.pdbx import cif
from hypothesis import given
from hypothesis import strategies as st

from protenix_multiseed.upstream import cif_text
from protenix_multiseed.upstream.cif_text import serialize_looped

# taken before any test replaces it
OWN = cif.CIFCategory._serialize_looped
texts = st.text(st.sampled_from("aB_1.-?'\" \t\n;#\r"), max_size=4)
tables = st.integers(2, 4).flatmap(
    lambda n_row: st.dictionaries(
        st.sampled_from(["id", "Cartn_x", "name"]), st.lists(texts, min_size=n_row, max_size=n_row), min_size=1
    )
)


@given(tables, st.sampled_from([0, 3, 10]))
def test_the_text_is_biotites(columns, most):
    """Also if a column is one of the last that were written, and if it is too long to be kept."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cif_text, "_MAX_KEPT_ROWS", most)
        category = cif.CIFCategory(columns, name="atom_site")
        category._row_count = len(next(iter(columns.values())))
        for _ in range(2):
            assert serialize_looped(category) == OWN(category)
