import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import biotite.structure.info as biotite_info
import numpy as np
import pytest
from biotite.structure.io import pdbx
from support import cases

from protenix_multiseed.errors import DictionaryError
from protenix_multiseed.hashes import sha256
from protenix_multiseed.upstream import dictionary_index as module
from protenix_multiseed.upstream.dictionary import (
    UPSTREAM_FILES,
    EmbeddedDictionary,
    UpstreamDictionary,
    find_dictionary,
)
from protenix_multiseed.upstream.molecules import make_molecule


@pytest.fixture(scope="module")
def dictionary():
    return EmbeddedDictionary()


def test_the_dictionary_holds_every_component_of_biotite(dictionary):
    codes = set(biotite_info.get_ccd()["chem_comp"]["id"].as_array())
    assert len(dictionary) == 47_353
    assert set(dictionary) == codes


@pytest.mark.filterwarnings("ignore:.*bond")  # biotite warns of a component without bonds
@pytest.mark.parametrize("code", ["ALA", "ATP", "DA", "HEM", "NA", "SEP", "A1A0A"])
def test_components_equal_biotites(dictionary, code):
    ours = pdbx.get_component(dictionary[code], use_ideal_coord=True)
    theirs = biotite_info.residue(code)
    assert np.array_equal(ours.atom_name, theirs.atom_name)
    assert np.array_equal(ours.charge, theirs.charge)
    assert np.allclose(ours.coord, theirs.coord, atol=1e-6)
    assert bonds(ours) == bonds(theirs)


def bonds(component):
    """Pairs of bonded atoms; a component of one atom has no bond list at all when read from mmCIF."""
    return set() if component.bonds is None else {tuple(sorted(pair)) for pair in component.bonds.as_array()[:, :2]}


def test_missing_values_stay_missing(dictionary):
    assert dictionary["ATP"]["chem_comp"]["one_letter_code"].as_item() == "?"
    assert dictionary["ALA"]["chem_comp"]["one_letter_code"].as_item() == "A"
    assert "chem_comp_atom" not in dictionary["UNL"]


def test_unknown_codes_are_not_found(dictionary):
    for code in ("", "QQQQQ", "ala", "zzzzzz"):
        assert code not in dictionary
        with pytest.raises(KeyError):
            dictionary[code]
    assert dictionary.molecule("QQQQQ") is None


def test_atom_names_leave_hydrogens_out(dictionary):
    assert dictionary.facts("ALA").atoms == ("N", "CA", "C", "O", "CB", "OXT")
    assert dictionary.facts("UNL").atoms == ()


def test_conformers_are_reproducible(dictionary, tmp_path):
    """A new molecule, a stored and loaded one, and one made in another process are equal bit for bit."""
    first = make_molecule("ATP", dictionary["ATP"])
    fresh = EmbeddedDictionary(dictionary.folder)
    fresh.molecule("ATP")
    loaded = EmbeddedDictionary(dictionary.folder).molecule("ATP")
    code = (
        "import sys, pickle; from protenix_multiseed.upstream.dictionary import *; d = EmbeddedDictionary();"
        "m = make_molecule('ATP', d['ATP']);"
        "sys.stdout.buffer.write(pickle.dumps(m.GetConformer(m.ref_conf_id).GetPositions()))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    positions = first.GetConformer(first.ref_conf_id).GetPositions()
    assert first.ref_conf_type == "rdkit"
    assert np.array_equal(positions, loaded.GetConformer(loaded.ref_conf_id).GetPositions())
    assert np.array_equal(positions, pickle.loads(done.stdout))
    for attribute in ("name", "sanitized", "ref_conf_id", "ref_conf_type", "atom_map"):
        assert getattr(first, attribute) == getattr(loaded, attribute)
    assert np.array_equal(first.ref_mask, loaded.ref_mask)


def test_the_reference_conformer_differs_from_the_ideal_one(dictionary):
    molecule = make_molecule("ATP", dictionary["ATP"])
    assert not np.allclose(
        molecule.GetConformer(0).GetPositions(), molecule.GetConformer(molecule.ref_conf_id).GetPositions()
    )


def test_a_truncated_stored_molecule_is_made_again(dictionary):
    dictionary.molecule("GLY")
    (path,) = dictionary.folder.glob("molecules/*/GLY.mol")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert EmbeddedDictionary(dictionary.folder).molecule("GLY").GetNumAtoms() == 10
    assert path.read_bytes() == whole


def test_two_threads_can_build_the_index_at_once(tmp_path):
    folder = tmp_path / "cache" / "index"
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(module._build_index, [folder, folder]))
    assert len(EmbeddedDictionary(folder)) == 47_353
    assert [path.name for path in folder.parent.iterdir()] == ["index"]


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A small index."""
    arrays = {name: np.arange(5000) for name in module._ARRAYS}
    monkeypatch.setattr(module, "_decode", lambda source: arrays)
    note, made = module.open_index(tmp_path / "cache" / "index")
    assert note is None
    assert all(np.array_equal(array, arrays["atoms"]) for array in made)
    return tmp_path / "cache" / "index"


DAMAGES = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "random": lambda path: path.write_bytes(os.urandom(path.stat().st_size)),
    "changed in the middle": lambda path: path.write_bytes(path.read_bytes()[:200] + b"?" + path.read_bytes()[201:]),
    "missing": lambda path: path.unlink(),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "a link": lambda path: (path.unlink(), path.symlink_to("/dev/zero")),
}


@pytest.mark.parametrize("name", ["atoms.npy", "bonds.npy", "components.npy", "text.npy", "complete"])
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_index_is_made_again(index, damage, name):
    """Regression: a cut file ended the process with SIGBUS, and other damage in a traceback."""
    damage(index / name)
    note, arrays = module.open_index(index)
    assert f"the index of the chemical dictionary in {index} was damaged" in note
    assert "it was made again" in note
    assert all(np.array_equal(array, np.arange(5000)) for array in arrays)
    assert module.open_index(index)[0] is None
    assert [path.name for path in index.parent.iterdir()] == ["index"]


def test_an_index_that_was_copied_is_checked_once_and_used(index, monkeypatch):
    for name in module._ARRAYS:
        os.utime(index / f"{name}.npy")
    hashed = []
    monkeypatch.setattr(module, "sha256", lambda path: hashed.append(path.name) or sha256(path))
    assert module.open_index(index)[0] is None
    assert len(hashed) == 4
    assert module.open_index(index)[0] is None
    assert len(hashed) == 4


def test_the_index_and_the_molecules_can_be_read_by_other_accounts(tmp_path, dictionary):
    folder = tmp_path / "index"
    before = os.umask(0o022)
    try:
        made = EmbeddedDictionary(folder)
        made.molecule("GLY")
    finally:
        os.umask(before)
    for path in (folder, *folder.rglob("*")):
        assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644), path


def test_a_garbled_stored_molecule_is_made_again(dictionary):
    whole = dictionary.molecule("SER")
    (path,) = dictionary.folder.glob("molecules/*/SER.mol")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF  # RDKit would read it as another molecule
    path.write_bytes(content)
    again = EmbeddedDictionary(dictionary.folder).molecule("SER")
    assert np.array_equal(again.GetConformer(0).GetPositions(), whole.GetConformer(0).GetPositions())
    assert path.read_bytes() != content


def test_a_cache_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DictionaryError, match="set PROTENIX_MS_CACHE to a folder that can be written"):
        EmbeddedDictionary(tmp_path / "file" / "index")


def test_upstreams_files_are_used_only_if_both_exist(tmp_path, monkeypatch, dictionary):
    monkeypatch.setenv("PROTENIX_ROOT_DIR", str(tmp_path))
    common = tmp_path / "common"
    common.mkdir()
    (common / UPSTREAM_FILES[0]).write_text("data_ALA\n#\ndata_NEW1\n#\n")
    assert isinstance(find_dictionary(), EmbeddedDictionary)
    (common / UPSTREAM_FILES[1]).touch()
    found = find_dictionary()
    assert isinstance(found, UpstreamDictionary)
    assert "ALA" in found
    assert "NEW1" in found
    assert "NEW" not in found
    assert "ATP" not in found
    assert found.facts("NEW1") is None
    assert found.facts("ALA") == dictionary.facts("ALA")


def test_molecules_are_made_without_rdkits_drawing_module():
    """Bare GPU hosts lack the X11 libraries that RDKit's drawing needs."""
    script = (
        "import sys; sys.modules['rdkit.Chem.Draw'] = None\n"
        "from protenix_multiseed.upstream.dictionary import EmbeddedDictionary\n"
        "print(EmbeddedDictionary().molecule('ATP').GetNumAtoms())"
    )
    environment = {**os.environ, "PYTHONPATH": str(cases.REPOSITORY)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-1000:]
    assert int(done.stdout) > 30
