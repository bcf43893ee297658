"""Components of the dictionary as components of a job's own."""

from protenix_multiseed.upstream.dictionary_index import cif_block
from protenix_multiseed.upstream.molecules import serialize


def renamed(dictionary, code, new):
    """A component of the dictionary under another code, as mmCIF text."""
    row = dictionary._row(code)
    component = dictionary._components[row]
    atoms = dictionary._atoms[component["first_atom"] : component["last_atom"]]
    bonds = dictionary._bonds[component["first_bond"] : component["last_bond"]]
    return serialize(new, cif_block(new, dictionary._summary(row), atoms, bonds))


# As a user writes one, with the columns that AlphaFold 3 asks for: propenamide, which bonds its C1.
ACRYLAMIDE = """\
data_LIG-1
_chem_comp.id LIG-1
_chem_comp.name 'an acrylamide'
_chem_comp.type non-polymer
_chem_comp.formula 'C3 H5 N O'
_chem_comp.mon_nstd_parent_comp_id ?
_chem_comp.pdbx_synonyms ?
_chem_comp.formula_weight 71.08
loop_
_chem_comp_atom.comp_id
_chem_comp_atom.atom_id
_chem_comp_atom.type_symbol
_chem_comp_atom.charge
_chem_comp_atom.pdbx_model_Cartn_x_ideal
_chem_comp_atom.pdbx_model_Cartn_y_ideal
_chem_comp_atom.pdbx_model_Cartn_z_ideal
LIG-1 C1 C 0 ? ? ?
LIG-1 C2 C 0 ? ? ?
LIG-1 C3 C 0 ? ? ?
LIG-1 O1 O 0 ? ? ?
LIG-1 N1 N 0 ? ? ?
LIG-1 H1 H 0 ? ? ?
LIG-1 H2 H 0 ? ? ?
LIG-1 H3 H 0 ? ? ?
LIG-1 H4 H 0 ? ? ?
LIG-1 H5 H 0 ? ? ?
loop_
_chem_comp_bond.atom_id_1
_chem_comp_bond.atom_id_2
_chem_comp_bond.value_order
_chem_comp_bond.pdbx_aromatic_flag
C1 C2 DOUB N
C2 C3 SING N
C3 O1 DOUB N
C3 N1 SING N
C1 H1 SING N
C1 H2 SING N
C2 H3 SING N
N1 H4 SING N
N1 H5 SING N
"""
