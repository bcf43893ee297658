"""Boltz's alignments as CSV: rows with equal keys are one row of the MSA, and no row is lost."""

import json

import numpy as np
import pytest
from protenix.data.constants import STD_RESIDUES_WITH_GAP

from protenix_multiseed.errors import RefusedInputsError
from protenix_multiseed.features.featurize import featurize
from protenix_multiseed.inputs.read import read_jobs
from protenix_multiseed.settings import FeatureSettings, InputRules, ReadSettings

FIRST, SECOND = "MKTAYIAKQR", "GHKLMNPQRS"


@pytest.fixture
def read(tmp_path, prepared_dictionary):
    def read(first, second):
        """Read a job of two proteins with these tables."""
        for name, text in (("first.csv", first), ("second.csv", second)):
            (tmp_path / name).write_text(text)
        chains = (("A", FIRST, "first.csv"), ("B", SECOND, "second.csv"))
        sequences = [{"protein": {"id": id, "sequence": sequence, "msa": name}} for id, sequence, name in chains]
        (tmp_path / "in.yaml").write_text(f"version: 1\nsequences: {json.dumps(sequences)}\n")
        (made,) = read_jobs([tmp_path / "in.yaml"], (1,), InputRules(model="m"), prepared_dictionary)
        return made

    return read


def table(*rows):
    """Rows of key and sequence."""
    return "key,sequence\n" + "".join(f"{key},{row}\n" for key, row in rows)


def rows_of(job):
    """The rows of a job's MSA, as the first and the last letter of both chains."""
    (made,) = featurize(job, FeatureSettings(reads=ReadSettings()))
    letters = {"ALA": "A", "LYS": "K", "TRP": "W", "-": "-"}
    codes = {STD_RESIDUES_WITH_GAP[code]: letter for code, letter in letters.items()}
    ends = np.asarray(made.arrays["msa"])[:, [0, 9, 10, 19]]
    return ["".join(codes.get(code, "q") for code in row) for row in ends.tolist()]


def test_rows_with_equal_keys_are_one_row_and_the_others_are_unpaired(read):
    first = table(("0", FIRST), ("7", "A" * 10), ("x_1/2", "K" * 10), ("-1", "W" * 10), ("9", "A" * 9 + "K"))
    second = table(("0", SECOND), ("x_1/2", "W" * 10), ("", "KAAAAAAAAA"), ("7", "K" * 10))
    rows = rows_of(read(first, second))
    assert rows[0] == "qqqq"
    assert set(rows[1:3]) == {"AAKK", "KKWW"}, "the pairs of keys 7 and x_1/2"
    letters = [row[:2] for row in rows[3:]], [row[2:] for row in rows[3:]]
    assert {"WW", "AK"} <= set(letters[0]), "the rows of the first chain that have no partner"
    assert "KA" in letters[1]
    assert not {"AA", "KK"} & set(letters[0]), "pairs are not repeated"


def test_keys_that_pandas_wrote_as_decimal_numbers_are_the_same_keys(read):
    """Regression: rows without a key became pairs, and pairs were lost."""
    first = [("", FIRST), ("1", "A" * 10), ("-1", "W" * 10), ("30", "K" * 10)]
    second = table(("0", SECOND), ("1", "K" * 10), ("30", "W" * 10))
    usual = rows_of(read(table(*first), second))
    decimal = rows_of(read(table(*((f"{key}.0" if key else "", row) for key, row in first)), second))
    assert decimal == usual
    assert {"AAKK", "KKWW"} <= set(usual)


def test_columns_may_be_exchanged_and_empty_rows_are_nothing(read):
    usual = table(("1", FIRST), ("7", "A" * 10))
    exchanged = f"sequence,key\r\n{FIRST},1\r\n ,3\r\n{'A' * 10},7\r\n"
    second = table(("1", SECOND), ("7", "K" * 10))
    assert rows_of(read(exchanged, second)) == rows_of(read(usual, second)) == ["qqqq", "AAKK"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "first.csv: the first line must name the columns sequence and key"),
        ("key,row\n1,A\n", "first.csv: the first line must name the columns sequence and key"),
        ("key,sequence\n", "first.csv: the table has no row"),
        (f"key,sequence\n1,{FIRST}\n2\n", "first.csv: line 3 does not have two values"),
        (f"key,sequence\n1,{FIRST}\n2,A,B\n", "first.csv: line 3 does not have two values"),
        (f'key,sequence\n1,"{FIRST}\n', "first.csv: not CSV: "),
        (table(("1", SECOND)), "no row of the alignment is the sequence, and none is similar"),
        (table(("1", FIRST), ("2", "MKT?YIAKQR")), "record 2 (UniRef100_line3_2/): '?' in column 4"),
    ],
)
def test_what_a_table_cannot_be_is_refused(read, text, says):
    with pytest.raises(RefusedInputsError) as error:
        read(text, table(("1", SECOND)))
    assert f"in.yaml[0] 'in': sequences[0].protein.msa: {says}" in str(error.value)
