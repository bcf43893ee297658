"""Small databases of MMseqs2, with a taxonomy, in both forms: a plain one, and one as ColabFold's UniRef30."""

import random
import subprocess

LETTERS = "ACDEFGHIKLMNPQRSTVWY"


def chains(lengths, seed=1):
    """Random sequences, one for each length."""
    source = random.Random(seed)
    return ["".join(source.choice(LETTERS) for _ in range(length)) for length in lengths]


def homologs(sequence, numbers, share=0.25):
    """Homologs by number: this share of the residues is changed."""
    return {
        number: "".join(
            source.choice(LETTERS) if source.random() < share else one
            for source in [random.Random(number)]
            for one in sequence
        )
        for number in numbers
    }


def write_database(folder, sequences, name="db"):
    """Make a plain database. Homolog k of every sequence belongs to species 100 + k; some species lack some."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = {
        f"UniRef100_{'ABCDEF'[place]}{number:04d}": (100 + number, row)
        for place, sequence in enumerate(sequences)
        for number, row in homologs(sequence, range(3 * place, 8 + place)).items()
    }
    (folder / "rows.fasta").write_text("".join(f">{key} a protein\n{row}\n" for key, (_, row) in rows.items()))
    (folder / "species.tsv").write_text("".join(f"{key}\t{taxon}\n" for key, (taxon, _) in rows.items()))
    taxa = sorted({taxon for taxon, _ in rows.values()})
    nodes = ["1\t|\t1\t|\tno rank\t|\n", *(f"{taxon}\t|\t1\t|\tspecies\t|\n" for taxon in taxa)]
    (folder / "nodes.dmp").write_text("".join(nodes))
    names = [f"{taxon}\t|\tname {taxon}\t|\t\t|\tscientific name\t|\n" for taxon in (1, *taxa)]
    (folder / "names.dmp").write_text("".join(names))
    for empty in ("merged.dmp", "delnodes.dmp"):
        (folder / empty).write_text("")
    mmseqs(folder, "createdb", "rows.fasta", name)
    mmseqs(folder, "createtaxdb", name, "tmp", "--ncbi-tax-dump", ".", "--tax-mapping-file", "species.tsv")
    return folder / name


def write_colabfold(folder, sequences):
    """Make databases as ColabFold's UniRef30: representatives, all members, and alignments between both."""
    made = write_database(folder / "source", sequences)
    target = folder / "databases" / "uniref30_test_db"
    target.parent.mkdir()
    source = made.parent
    mmseqs(source, "cluster", "db", "clusters", "tmp", "--min-seq-id", "0.3")
    mmseqs(source, "createsubdb", "clusters", "db", str(target))
    mmseqs(source, "createsubdb", "clusters", "db_h", f"{target}_h")
    mmseqs(source, "align", "db", "db", "clusters", f"{target}_aln", "-a", "-e", "inf")
    for ending in ("", "_h"):
        mmseqs(source, "cpdb", f"db{ending}", f"{target}_seq{ending}")
    for ending in ("_mapping", "_taxonomy"):  # of the members, although they are named after the representatives
        target.with_name(target.name + ending).write_bytes((source / f"db{ending}").read_bytes())
    return target.parent


def mmseqs(folder, *arguments):
    subprocess.run(["mmseqs", *arguments, "-v", "1"], cwd=folder, check=True, capture_output=True)
