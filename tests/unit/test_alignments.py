"""Alignments in all formats that people have: each is read as the same a3m, or refused with file and record."""

import gzip
import io
import itertools
import lzma

import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from protenix_multiseed.errors import InputError
from protenix_multiseed.inputs import alignment_formats, alignments
from protenix_multiseed.inputs.alignments import facts_of, problem_of, rewritten, rows_of
from protenix_multiseed.job_spec import Alignment, SourceFile

SEQUENCE = "MKTAYIAKQR"
ROWS = ["MKTAYIAKQR", "MK--YIAKQR", "MKTAaaYIAK--", "-RTAYLAcKQR"]


def text_of(rows):
    return "".join(f">row{number}\n{row}\n" for number, row in enumerate(rows))


A3M = text_of(ROWS)
# The same rows, aligned: the query has gaps where the third and the fourth row have insertions.
ALIGNED = ["MKTA--YIA-KQR", "MK----YIA-KQR", "MKTAAAYIA-K--", "-RTA--YLACKQR"]
FASTA = text_of(ALIGNED)
STOCKHOLM = (
    "# STOCKHOLM 1.0\n#=GF ID example\n\n"
    + "".join(f"row{number} {row[:6].replace('-', '.')}\n" for number, row in enumerate(ALIGNED))
    + "\n"
    + "".join(f"row{number} {row[6:].lower() if number else row[6:]}\n" for number, row in enumerate(ALIGNED))
    + "//\n"
)


def parquet(rows=tuple(ROWS), keys=None):
    import pyarrow
    import pyarrow.parquet

    made = io.BytesIO()
    columns = {
        "sequence": list(rows),
        "source_database": ["x"] * len(rows),
        "pairing_key": list(keys or [""] * len(rows)),
    }
    pyarrow.parquet.write_table(pyarrow.table(columns), made)
    return made.getvalue()


FILES = {
    "plain": A3M.encode(),
    "line ends": A3M.replace("\n", "\r\n").encode(),
    "tabs and comments": ("# a comment\n" + A3M.replace("\n>", "\t\n>")).encode(),
    "gzip": gzip.compress(A3M.encode()),
    "two gzip parts": gzip.compress(A3M[:40].encode()) + gzip.compress(A3M[40:].encode()),
    "xz": lzma.compress(A3M.encode()),
    "zstd": zstd.compress(A3M.encode()),
    "aligned FASTA": FASTA.encode(),
    "packed FASTA": gzip.compress(FASTA.encode()),
    "Stockholm": STOCKHOLM.encode(),
    "packed Stockholm": zstd.compress(STOCKHOLM.encode()),
    "Parquet": parquet(),
    "query last": "".join(f">row{n}\n{row}\n" for n, row in [*list(enumerate(ROWS))[1:], (0, ROWS[0])]).encode(),
    "query missing": "".join(f">row{n}\n{row}\n" for n, row in list(enumerate(ROWS))[1:]).encode(),
    "aligned query last": "".join(
        f">row{n}\n{row}\n" for n, row in [*list(enumerate(ALIGNED))[1:], (0, ALIGNED[0])]
    ).encode(),
}


def alignment(path, content):
    path.write_bytes(content)
    return Alignment(file=SourceFile(path=path, written=path.name))


def rows(text):
    return [line for line in text.splitlines() if not line.startswith(">")]


@pytest.mark.parametrize("form", FILES)
def test_every_format_is_read_as_the_same_rows(form, tmp_path):
    one = alignment(tmp_path / "any.name", FILES[form])
    assert problem_of(one, "protein", SEQUENCE, exact=False) is None
    assert rows(rewritten(one, "protein", SEQUENCE)) == ROWS
    text = Alignment(text=A3M)
    assert list(rows_of(one, "protein", SEQUENCE, exact=False)) == list(rows_of(text, "protein", SEQUENCE, exact=False))


@pytest.mark.parametrize("form", FILES)
def test_protenix_exact_takes_what_protenix_reads(form, tmp_path):
    problem = problem_of(alignment(tmp_path / "x", FILES[form]), "protein", SEQUENCE, exact=True)
    if form in ("plain", "line ends", "tabs and comments"):
        assert problem is None
    elif form in ("aligned FASTA", "query last", "query missing", "aligned query last"):
        assert "takes the first row for the sequence" in problem
    else:
        assert "Protenix reads only a3m text" in problem


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (gzip.compress(A3M.encode())[:-12], "damaged: it cannot be unpacked"),
        (gzip.compress(A3M.encode())[:6], "damaged: it cannot be unpacked"),
        (zstd.compress(A3M.encode())[:-6], "damaged: it cannot be unpacked"),
        (b"\x28\xb5\x2f\xfdnot zstd at all", "damaged: it cannot be unpacked"),
        (lzma.compress(A3M.encode())[:-12], "damaged: it cannot be unpacked"),
        (b"PAR1 this is no table PAR1", "not a Parquet table"),
        (parquet(rows=["WWWWW"]), "is similar"),
        (b"# STOCKHOLM 1.0\nrow0\n//\n", "not a Stockholm alignment"),
        ((STOCKHOLM * 2).encode(), "2 Stockholm alignments"),
        (b"# STOCKHOLM 1.0\n", "Stockholm"),
        (b">a\nWWWWWWWWWW\n>b\nCCCCCCCCCC\n", "no row of the alignment is the sequence, and none is similar"),
        (b">a\nMK--------\n>b\nWWWWWWWWWW\n", "none is similar"),
        (b">a\nMKTAYIAKQ\n", r"differs from it at position 10 \(9 and 10 residues\)"),
        (b">a\nMKT-AYI*KQR\n", "record 1 .a.: '\\*' in column 8"),
    ],
    ids=itertools.count(),
)
def test_what_cannot_be_read_is_refused(content, says, tmp_path):
    with pytest.raises(InputError, match=says) as error:
        facts_of(alignment(tmp_path / "x.a3m", content), "protein", SEQUENCE)
    assert str(error.value).startswith("x.a3m: ")


def test_a_small_file_that_unpacks_to_more_than_the_limit_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(alignments, "MAX_BYTES", 2**20)
    bomb = b">q\n" + SEQUENCE.encode() + b"\n" + b">r\nMKTAYIAKQR\n" * 2**18
    for number, packed in enumerate((gzip.compress(bomb), lzma.compress(bomb), zstd.compress(bomb))):
        with pytest.raises(InputError, match="unpacks to more than 1048576 bytes"):
            facts_of(alignment(tmp_path / f"x{number}", packed), "protein", SEQUENCE)


def test_rows_with_one_pairing_key_are_of_one_species(tmp_path):
    from protenix.data.msa.msa_utils import MSAPairingEngine

    one = alignment(tmp_path / "x", parquet(keys=["", "9606", "9606", "mus_musculus/2"]))
    headers = [line[1:] for line in rewritten(one, "protein", SEQUENCE).splitlines() if line.startswith(">")]
    assert MSAPairingEngine.get_species_ids(headers) == ["", "9606", "9606", "k" + b"mus_musculus/2".hex()]


def test_an_alignment_of_a_longer_sequence_keeps_its_columns(tmp_path):
    """The sequence is a row of an alignment that was made for a longer one. Rows may have insertions of their own."""
    text = ">long\nMKTWWAYIAKQRGG\n>ours\nMKT--AYIAKQR--\n>other\nMKTWaWA-IAKQRG-\n"
    made = rewritten(alignment(tmp_path / "x", text.encode()), "protein", SEQUENCE)
    assert rows(made) == [SEQUENCE, "MKTwwAYIAKQRgg", "MKTwawA-IAKQRg"]


@st.composite
def aligned_rows(draw):
    """Rows of aligned FASTA, the first one a query with gaps; and the sequence."""
    n_column = draw(st.integers(2, 12))
    rows = draw(st.lists(st.text("ACDE-", min_size=n_column, max_size=n_column), min_size=1, max_size=5))
    return rows, rows[0].replace("-", "")


@given(aligned_rows())
def test_aligned_rows_keep_every_residue_in_its_column(made):
    aligned, sequence = made
    if not sequence:
        return
    text = Alignment(text="".join(f">{n}\n{row}\n" for n, row in enumerate(aligned)))
    for row, a3m in zip(aligned, rows(rewritten(text, "protein", sequence)), strict=False):
        columns = "".join(sign for sign in a3m if not sign.islower())
        assert columns == "".join(b for a, b in zip(aligned[0], row, strict=True) if a != "-")
        assert a3m.upper().replace("-", "") == row.replace("-", "")


def test_a_point_mutant_can_use_the_alignment_of_the_wild_type():
    wild = Alignment(text=A3M)
    mutant = "MKTAYIAWQR"
    assert problem_of(wild, "protein", mutant, exact=False) is None
    assert rows(rewritten(wild, "protein", mutant)) == [mutant, *ROWS]


def test_the_format_is_told_by_content(tmp_path):
    for form, content in FILES.items():
        (tmp_path / "x.a3m").write_bytes(content)
        plain = not any(name in form for name in ("gzip", "xz", "zstd", "Stockholm", "Parquet", "packed"))
        assert alignment_formats.is_plain(tmp_path / "x.a3m") == plain, form
