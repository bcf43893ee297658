"""A template structure with what real ones have: residues without coordinates, alternative atoms, modifications."""

import gemmi
from support.cases import write_template

UNRESOLVED = (5, 6)  # label_seq_id
MODIFIED = 3


def write_rough_template(path):
    """Write ``9xyz`` of ``support.cases`` with such defects."""
    write_template(path)
    document = gemmi.cif.read(str(path))
    block = document.sole_block()
    atoms = block.find_mmcif_category("_atom_site.")
    names = [tag.removeprefix("_atom_site.") for tag in atoms.tags]
    rows = [dict(zip(names, row, strict=True)) for row in atoms]
    made = []
    for row in rows:
        number = int(row["label_seq_id"])
        row |= {f"Cartn_{axis}": f"{float(row[f'Cartn_{axis}']):.3f}" for axis in "xyz"}  # a PDB file has no more
        if number in UNRESOLVED:
            continue
        if number == MODIFIED:
            row |= {"group_PDB": "HETATM", "label_comp_id": "MSE", "auth_comp_id": "MSE"}
        made.append(row)
        if row["label_atom_id"] == "CB" and number in (2, 9):  # in two places; the second is preferred in residue 2
            first, second = ("0.4", "0.6") if number == 2 else ("0.5", "0.5")
            row |= {"label_alt_id": "A", "occupancy": first}
            made.append({**row, "label_alt_id": "B", "occupancy": second, "Cartn_x": "9.125"})
        if row["label_atom_id"] == "CB" and row["label_comp_id"] == "ARG":  # the two names are exchanged
            for name, x in (("CD", "20.0"), ("NH1", "23.5"), ("NH2", "21.3")):
                made.append({**row, "label_atom_id": name, "auth_atom_id": name, "Cartn_x": x})
        if row["label_atom_id"] == "CB" and number == MODIFIED:
            made.append({**row, "label_atom_id": "SE", "auth_atom_id": "SE", "type_symbol": "SE", "Cartn_x": "3.5"})
    loop = block.init_mmcif_loop("_atom_site.", names)
    for number, row in enumerate(made, start=1):
        loop.add_row([{**row, "id": str(number)}[name] for name in names])
    sequence = block.find("_entity_poly_seq.", ["num", "mon_id"])
    for row in sequence:
        if row[0] == str(MODIFIED):
            row[1] = "MSE"
    block.find_loop("_chem_comp.id").get_loop().add_row(["MSE", "'L-peptide linking'"])
    document.write_file(str(path))
