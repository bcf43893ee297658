"""Write upstream's two dictionary files with chosen components only, taken from the embedded dictionary.

    python scripts/write_dictionary.py FOLDER ALA GLY ATP ...

The files are FOLDER/common/components.cif and FOLDER/common/components.cif.rdkit_mol.pkl. Protenix reads them if
PROTENIX_ROOT_DIR=FOLDER. The tests use them to give upstream and this package the same small dictionary.
"""

import argparse
import pickle
from pathlib import Path

from protenix_multiseed.upstream.dictionary import EmbeddedDictionary
from protenix_multiseed.upstream.molecules import serialize


def write_dictionary(root: Path, codes: list[str]) -> None:
    """Write both files under ``root/common``, with the embedded dictionary's reference conformers."""
    from rdkit import Chem

    Chem.SetDefaultPickleProperties(Chem.PropertyPickleOptions.AllProps)  # keep the names of the atoms in the pickle
    dictionary = EmbeddedDictionary()
    common = root / "common"
    common.mkdir(parents=True, exist_ok=True)
    (common / "components.cif").write_text("".join(serialize(code, dictionary[code]) for code in codes))
    molecules = {code: dictionary.molecule(code) for code in codes}
    (common / "components.cif.rdkit_mol.pkl").write_bytes(pickle.dumps(molecules))


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("codes", nargs="+")
    arguments = parser.parse_args()
    write_dictionary(arguments.folder, arguments.codes)


if __name__ == "__main__":
    main()
