"""Stand-in for the program kalign, which Protenix calls to align a template. It uses biotite's global alignment."""

import sys
from pathlib import Path

from biotite.sequence import ProteinSequence
from biotite.sequence.align import SubstitutionMatrix, align_optimal
from biotite.sequence.io.fasta import FastaFile


def main(arguments: list[str]) -> None:
    options = dict(zip(arguments[::2], arguments[1::2], strict=True))
    entries = dict(FastaFile.read(options["-i"]).items())
    sequences = [ProteinSequence(text) for text in entries.values()]
    alignment = align_optimal(*sequences, SubstitutionMatrix.std_protein_matrix(), gap_penalty=(-11, -1))[0]
    rows = zip(entries, alignment.get_gapped_sequences(), strict=True)
    Path(options["-o"]).write_text("".join(f">{name}\n{row}\n" for name, row in rows))


if __name__ == "__main__":
    main(sys.argv[1:])
