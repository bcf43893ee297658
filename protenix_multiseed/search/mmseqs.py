"""Search local databases with MMseqs2.

A database of ColabFold (UniRef30, its environmental database) holds representatives, all their members, and the
alignments between both. A hit is expanded to its members, as ``colabfold_search`` does. Any other database is searched
directly. If the first database has a taxonomy, its rows are paired by species, as Protenix's own server does it.
"""

import glob
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from pathlib import Path

from protenix_multiseed.errors import ConfigError
from protenix_multiseed.inputs.alignment_records import read_records
from protenix_multiseed.search.archive import paired_header
from protenix_multiseed.search.base import Found, QueryError, SearchError, Tell, first_row

_SEARCH = ("--num-iterations", "3", "-a", "-e", "0.1", "--max-seqs", "10000")
_EXPAND = ("--expansion-mode", "0", "-e", "inf", "--expand-filter-clusters", "1", "--max-seq-id", "0.95")
_REALIGN = ("-e", "10", "--max-accept", "100000", "--alt-ali", "10", "-a")
_KEEP = ("--qid", "0", "--qsc", "0.8", "--diff", "0", "--max-seq-id", "1.0", "--filter-min-enable", "100")
_MSA = (
    "--msa-format-mode", "6", "--filter-msa", "1", "--filter-min-enable", "1000", "--diff", "3000",
    "--qid", "0.0,0.2,0.4,0.6,0.8,1.0", "--qsc", "0", "--max-seq-id", "0.95",
)  # fmt: skip
TAXONOMY = ("_mapping", "_taxonomy")  # endings of its files
_COLABFOLD = ("uniref30*_db", "colabfold_envdb*_db", "bfd_mgy_colabfold")  # in this order


@dataclass(frozen=True, slots=True)
class Database:
    """One database of MMseqs2.

    Attributes:
        path: Its path without an ending.
    """

    path: Path

    @property
    def name(self) -> str:
        """The path, and the times of the last change of the database and of its taxonomy, which may be added later."""
        files = [self.file(ending) for ending in (".dbtype", *(TAXONOMY if self.has_taxonomy else ()))]
        return " ".join([str(self.path), *(str(file.stat().st_mtime_ns) for file in files)])

    @property
    def members(self) -> tuple[str, str] | None:
        """Databases of the members and of their alignments to the representatives; None if it has none."""
        if self.file(".idx.dbtype").is_file():
            return f"{self.path}.idx", f"{self.path}.idx"
        if self.file("_seq.dbtype").is_file() and self.file("_aln.dbtype").is_file():
            return f"{self.path}_seq", f"{self.path}_aln"
        return None

    @property
    def has_taxonomy(self) -> bool:
        """Whether it says the species of its sequences."""
        return all(self.file(ending).is_file() for ending in TAXONOMY)

    def file(self, ending: str) -> Path:
        """Return one of its files."""
        return self.path.with_name(self.path.name + ending)


def find_databases(path: Path) -> tuple[Database, ...]:
    """Return the databases that a path names: one database, or a folder with those of ColabFold or with one database.

    Raises:
        ConfigError: if there are none, or if it is not clear which one is meant.
    """
    if path.with_name(path.name + ".dbtype").is_file():
        return (Database(path.absolute()),)  # MMseqs2 runs in a folder of its own
    if not path.is_dir():
        raise ConfigError(f"{path}: no database of MMseqs2 (no {path.name}.dbtype) and no folder of databases")
    known = [file for pattern in _COLABFOLD for file in sorted(path.glob(f"{pattern}.dbtype"))]
    parts = ("_h", "_seq", "_seq_h", "_aln", "_clu", ".idx", "_pad", "_pad_h")
    found = known or [file for file in sorted(path.glob("*.dbtype")) if not file.stem.endswith(parts)]
    if not found:
        raise ConfigError(f"{path}: the folder holds no database of MMseqs2 (no file *.dbtype)")
    if len(found) > 1 and not known:
        names = ", ".join(file.stem for file in found)
        raise ConfigError(f"{path}: the folder holds several databases ({names}): name one of them, as {found[0].stem}")
    return tuple(Database(file.with_suffix("").absolute()) for file in found)


class Mmseqs:
    """See :class:`protenix_multiseed.search.base.Searcher`.

    Args:
        databases: Databases to search, the one whose rows are paired first.
        gpu: Whether MMseqs2 runs on a GPU. The databases must have been padded for this.
        threads: CPU threads.
        tell: Receives the steps.

    Raises:
        ConfigError: if MMseqs2 is not installed, or cannot run on a GPU.
    """

    batch = 10_000

    def __init__(self, databases: Sequence[Database], *, gpu: bool, threads: int, tell: Tell) -> None:
        self._databases, self._tell = databases, tell
        self._program = shutil.which("mmseqs")
        if self._program is None:
            raise ConfigError("mmseqs: not found; install MMseqs2 (apt install mmseqs2) and put it on PATH")
        self._more = ["--threads", str(threads)]
        self._search_more = ["--gpu", "1", "--prefilter-mode", "1"] if gpu else ["-s", "8"]
        if gpu and "--gpu " not in self._output_of(["search", "-h"]):
            raise ConfigError(
                "msa_gpu (--gpu of 'protenix-ms msa'): this MMseqs2 cannot use a GPU; install release 16 or later, or "
                "leave it out"
            )
        self.name = " ".join(["mmseqs", *(one.name for one in databases), *self._search_more])

    def search(self, sequences: Sequence[str]) -> list[Found]:
        """See :class:`protenix_multiseed.search.base.Searcher`."""
        with tempfile.TemporaryDirectory(prefix="protenix-ms-") as made:
            folder = Path(made)
            query = "".join(f">{number}\n{one}\n" for number, one in enumerate(sequences))
            (folder / "query.fasta").write_text(query)
            self._run(["createdb", "query.fasta", "query", "--shuffle", "0"], folder)
            rows = [self._search_one(one, number, folder) for number, one in enumerate(self._databases)]
            species = self._species(folder) if self._databases[0].has_taxonomy else {}
            return [
                _found(sequence, [one[number] for one in rows], species) for number, sequence in enumerate(sequences)
            ]

    def pair(self, sequences: Sequence[str]) -> list[str] | None:
        """Return None: rows are paired by species, which :meth:`search` gives, or not at all."""
        return None

    def _search_one(self, database: Database, number: int, folder: Path) -> list[bytes]:
        """Search one database for all queries. Return each query's alignment; the first row is the query."""
        self._tell(f"searching {database.path.name}")
        query = "query" if number == 0 else "profile0"  # the first search's profiles, as colabfold_search does
        if not (folder / f"{query}.dbtype").is_file():
            query = "query"
        hits, profile = f"hits{number}", f"profile{number}"
        self._run(["search", query, str(database.path), hits, f"tmp{number}", *_SEARCH, *self._search_more], folder)
        if database.members is not None:
            members, alignments = database.members
            found = folder / f"tmp{number}" / "latest" / "profile_1"
            self._run(["mvdb", str(found), profile], folder)
            self._run(["lndb", "query_h", f"{profile}_h"], folder)
            self._run(["expandaln", query, members, hits, alignments, f"all{number}", *_EXPAND], folder)
            self._run(["align", profile, members, f"all{number}", f"aligned{number}", *_REALIGN], folder)
            hits = f"kept{number}"
            self._run(["filterresult", "query", members, f"aligned{number}", hits, *_KEEP], folder)
        self._run(["result2msa", "query", self._rows_of(database), hits, f"msa{number}", *_MSA], folder)
        unpacked = folder / f"unpacked{number}"
        unpacked.mkdir()
        self._run(
            ["unpackdb", f"msa{number}", unpacked.name, "--unpack-name-mode", "0", "--unpack-suffix", ".a3m"], folder
        )
        count = len(list(unpacked.glob("*.a3m")))
        return [(unpacked / f"{index}.a3m").read_bytes().rstrip(b"\0") for index in range(count)]

    def _species(self, folder: Path) -> dict[str, str]:
        """Return the species of each hit in the first database, as the number of its taxon."""
        database = self._databases[0]
        hits = "hits0" if database.members is None else "kept0"
        self._link_rows(database, folder)
        self._run(["convertalis", "query", "rows", hits, "species.tsv", "--format-output", "target,taxid"], folder)
        lines = (line.split("\t") for line in (folder / "species.tsv").read_text().splitlines())
        return {target: taxon for target, taxon in lines if taxon not in ("0", "1")}  # unclassified, the root

    def _link_rows(self, database: Database, folder: Path) -> None:
        """Give the database's sequences its taxonomy, which ColabFold names after the representatives."""
        rows = Path(self._rows_of(database)).absolute()
        for file in rows.parent.glob(f"{glob.escape(rows.name)}*"):
            (folder / f"rows{file.name.removeprefix(rows.name)}").symlink_to(file)
        for ending in TAXONOMY:
            if not (folder / f"rows{ending}").exists():
                (folder / f"rows{ending}").symlink_to(database.file(ending).absolute())

    @staticmethod
    def _rows_of(database: Database) -> str:
        return str(database.path) if database.members is None else database.members[0]

    def _run(self, arguments: list[str], folder: Path) -> None:
        more = self._more if arguments[0] not in ("createdb", "mvdb", "lndb", "convertalis") else []
        self._output_of([*arguments, *more, "-v", "2"], folder)

    def _output_of(self, arguments: list[str], folder: Path | None = None) -> str:
        assert self._program is not None
        made = subprocess.run(
            [self._program, *arguments], cwd=folder, capture_output=True, text=True, errors="replace", check=False
        )
        if made.returncode < 0:
            raise SearchError(f"mmseqs {arguments[0]} was killed by signal {-made.returncode}: is there enough memory?")
        if made.returncode and "-h" not in arguments:
            lines = (made.stderr + made.stdout).strip().splitlines() or ["no message"]
            raise QueryError(f"mmseqs {arguments[0]} failed: {lines[-1][:300]}")
        return made.stdout


def _found(sequence: str, alignments: Sequence[bytes], species: dict[str, str]) -> Found:
    """Put the rows of all databases together. The rows of which the species is known can be paired."""
    unpaired, paired = [first_row(sequence)], [first_row(sequence)]
    for number, alignment in enumerate(alignments):
        for record in islice(read_records(BytesIO(alignment)), 1, None):
            header, row = record.header.decode(errors="replace"), record.row.decode()
            unpaired.append(f">{header}\n{row}\n")
            taxon = species.get(header.split()[0]) if number == 0 and header.strip() else None
            if taxon is not None:
                paired.append(f">{paired_header(header, taxon)}\n{row}\n")
    return Found(unpaired="".join(unpaired), paired="".join(paired) if species else None)
