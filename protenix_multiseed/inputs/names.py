"""Names of jobs and chains: only names that every program reads back from the files as they were given.

A job's name becomes a folder, a part of file names, the name of an mmCIF data block and a cell of tables. A chain's
name becomes a value in mmCIF files and tables. mmCIF is ASCII and reserves some words. Spreadsheets take a cell that
starts with ``=``, ``+``, ``-`` or ``@`` for a formula.
"""

import re
from collections.abc import Iterator

from protenix_multiseed.paths import RESERVED_NAMES

MAX_NAME_BYTES = 150  # file names add up to 60 bytes to the job name, and file systems allow 255
MAX_CHAIN_LETTERS = 16
_JOB_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9 _.,:+=@%()\[\]-]*[A-Za-z0-9_,:+=@%()\[\]-])?")
_CHAIN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
_MMCIF_WORD = re.compile(r"(data_|save_|loop_|stop_|global_)", re.IGNORECASE)


def job_name_problems(name: str) -> Iterator[str]:
    """Yield what is wrong with a job's name. Each problem starts with the field."""
    if name.casefold() in RESERVED_NAMES:
        yield f"name: {name!r} is what a file or folder of the run itself is called: choose another name"
    elif not _JOB_NAME.fullmatch(name):
        yield (
            f"name: {name[:60]!r} is no name that every program reads back: begin it with a letter A-Z or a digit, end "
            "it with neither a blank nor '.', and use letters, digits, blanks and _.,:+=@%()[]-"
        )
    elif _MMCIF_WORD.match(name):
        yield f"name: {name[:60]!r} begins with a word that mmCIF reserves: put something before it"
    if (length := len(name.encode(errors="replace"))) > MAX_NAME_BYTES:
        yield f"name: {length} bytes long: at most {MAX_NAME_BYTES} are allowed, because it becomes part of file names"


def chain_id_problem(chain_id: str) -> str | None:
    """Return why a chain cannot have this name; None if it can."""
    if not _CHAIN_ID.fullmatch(chain_id) or len(chain_id) > MAX_CHAIN_LETTERS:
        return (
            f"{chain_id[:30]!r}: a chain's name starts with a letter or digit and has at most {MAX_CHAIN_LETTERS} "
            "letters, digits, '_', '.', '+' and '-', so that every program reads it back from mmCIF files"
        )
    if _MMCIF_WORD.match(chain_id):
        return f"{chain_id!r} begins with a word that mmCIF reserves: choose another name for the chain"
    return None
