"""``protenix-ms fetch``: download checkpoints from upstream's addresses.

A broken download is resumed. A file moves to its final place only when it is complete. Its SHA-256 is compared with a
published one, if there is one, and recorded.
"""

import errno
import fcntl
import http.client
import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from protenix_multiseed import __version__
from protenix_multiseed.errors import ConfigError, WeightsError
from protenix_multiseed.failures import advice_for
from protenix_multiseed.files import write_text
from protenix_multiseed.hashes import hash_file, recorded_sha256
from protenix_multiseed.hashes import sha256 as sha256_of
from protenix_multiseed.upstream.checkpoints import default_checkpoint_dir, download_urls, template_data_dir
from protenix_multiseed.upstream.models import MODELS

TIMEOUT_SECONDS = 60
TEMPLATE_DATA = "template-data"
_BLOCK = 1 << 20
_LOCAL = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EISDIR, errno.ENOTDIR, errno.EEXIST)
_DATA_FILES = frozenset(
    {
        "ccd_components_file",
        "ccd_components_rdkit_mol_file",
        "pdb_cluster_file",
        "obsolete_release_data_csv",
        "obsolete_pdbs_path",
        "release_dates_path",
    }
)
_TEMPLATE_FILES = ("release_dates_path", "obsolete_pdbs_path")


def fetch_model(model: str, to: Path | None, url: str | None, sha256: str | None = None) -> list[Path]:
    """Download a model's checkpoint, or the template data. Files that exist are kept.

    If the model uses a language model (ESM), its checkpoints are downloaded too.

    Args:
        model: Name of a model, or ``template-data``.
        to: Folder for the checkpoint; None for the default folder.
        url: Another address for the checkpoint; None for upstream's own.
        sha256: The SHA-256 that the checkpoint must have; None: that of the table of models, if it has one.

    Returns:
        Paths of the files.

    Raises:
        ConfigError: if upstream has no model of this name.
        WeightsError: if the download fails. The partial download is kept, and the next try resumes it. Or if a file
            has another SHA-256.
    """
    if sha256 is not None and not re.fullmatch("[0-9a-fA-F]{64}", sha256):
        raise ConfigError(f"--sha256 {sha256!r}: not the 64 hexadecimal digits of a SHA-256")
    console = Console(stderr=True, highlight=False)
    if model == TEMPLATE_DATA:
        if to is not None or url is not None or sha256 is not None:
            raise ConfigError(
                f"{TEMPLATE_DATA}: --to, --url and --sha256 do not apply; set PROTENIX_ROOT_DIR to choose the folder"
            )
        targets = {
            template_data_dir() / url.rsplit("/", 1)[-1]: url
            for url in map(download_urls().get, _TEMPLATE_FILES)
            if url
        }
        return [_fetch(url, target, console) for target, url in targets.items()]
    urls = download_urls()
    if model not in (known := fetchable()):
        raise ConfigError(f"{model!r} cannot be fetched; known: {', '.join(known)}")
    names = [model]
    if url is None:
        names += [name for spec in MODELS if spec.name == model and spec.esm for name in spec.esm.checkpoints]
    published = {spec.name: spec.sha256 for spec in MODELS} | ({model: sha256.lower()} if sha256 else {})
    folder = to or default_checkpoint_dir()
    return [_fetch(url or urls[name], folder / f"{name}.pt", console, published.get(name)) for name in names]


def fetchable() -> list[str]:
    """Return the names of everything that can be fetched."""
    return [*(name for name in download_urls() if name not in _DATA_FILES), TEMPLATE_DATA]


def _fetch(url: str, target: Path, console: Console, expected: str | None = None) -> Path:
    if not target.exists():
        download(url, target, console, expected)
        how = "as expected" if expected else "recorded; none is published to compare it with"
        console.print(f"{target}  SHA-256 {recorded_sha256(target)} ({how})", soft_wrap=True)
        return target
    if expected is not None and (found := sha256_of(target)) != expected:
        raise WeightsError(f"{target} exists already, with SHA-256 {found}, not {expected}; move it away")
    state = "SHA-256 as expected" if expected else f"{'a' if recorded_sha256(target) else 'no'} SHA-256 is recorded"
    console.print(f"{target} exists already ({state})", soft_wrap=True)
    return target


def download(url: str, target: Path, console: Console, expected: str | None = None) -> None:
    """Download one file. An earlier partial download is resumed if the server supports it.

    Args:
        expected: The SHA-256 that the file must have; None if it is not known.

    Raises:
        WeightsError: if the download fails; the message names the address and the way out.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target.with_name(f"{target.name}.part")) as file:
            partial = Path(file.name)
            _receive(url, file, target.name, console)
            found = sha256_of(partial)
            _origin_file(partial).unlink()
            if expected is not None and found != expected:
                partial.unlink()
                raise WeightsError(f"the file has SHA-256 {found}, not {expected}; it was removed. It came from {url}")
            hash_file(target).write_text(f"{found}  {target.name}\n")
            os.replace(partial, target)
    except urllib.error.HTTPError as error:
        error.close()
        raise WeightsError(
            f"the server answered {error.code} {error.reason}; download the file by hand to {target} from {url}"
        ) from None
    except (urllib.error.URLError, http.client.HTTPException, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno in _LOCAL:
            raise WeightsError(
                f"{error.filename or target}: {error.strerror}; {advice_for(error)}, then run the same command again"
            ) from None
        reason = getattr(error, "reason", None) or error
        raise WeightsError(
            f"{reason}; run the same command again to resume, or download the file by hand to {target} from {url}"
        ) from error


@contextmanager
def _locked(partial: Path) -> Iterator[BinaryIO]:
    """Open a partial download, or make it, and keep other processes from writing it. Nothing is left of an empty one.

    Raises:
        WeightsError: if another process downloads the file.
    """

    def is_there() -> bool:
        return partial.exists() and os.path.samestat(partial.stat(), os.fstat(file.fileno()))

    with partial.open("ab") as file:
        is_free = True
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            is_free = False
        except OSError:
            pass  # the file system has no locks
        if not is_free or not is_there():  # another process that had the lock may have finished or removed the file
            raise WeightsError(f"{partial}: another fetch downloads this file; wait for its end")
        try:
            yield file
        finally:
            if is_there() and not partial.stat().st_size:
                partial.unlink()
                _origin_file(partial).unlink(missing_ok=True)


def _receive(url: str, file: BinaryIO, name: str, console: Console) -> None:
    """Receive a file, or the rest of a partial download if it is of the same version of the file.

    Raises:
        WeightsError: if the file is cut short.
        OSError, http.client.HTTPException, ValueError: if the download fails.
    """
    origin_file = _origin_file(Path(file.name))
    have, origin = os.fstat(file.fileno()).st_size, {}
    with suppress(OSError, ValueError):
        origin = json.loads(origin_file.read_text())
    response, have = _answer(url, have, origin if origin.get("url") == url else {})
    with response:
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None
        if not have:
            file.truncate(0)
            write_text(origin_file, json.dumps({"url": url, "version": _version(response), "bytes": total}))
        with _progress(console) as progress:
            task = progress.add_task(name, total=total, completed=have)
            while block := response.read(_BLOCK):
                file.write(block)
                progress.advance(task, len(block))
            file.flush()
            os.fsync(file.fileno())
    got = os.fstat(file.fileno()).st_size
    if total is not None and got != total:
        raise WeightsError(
            f"{got} of {total} bytes received; run the same command again to resume. They come from {url}"
        )


def _answer(url: str, have: int, origin: dict[str, Any]) -> tuple[Any, int]:
    """Ask for the rest of a file, or for all of it if the partial download is not of the server's file.

    Args:
        have: Length of the partial download, bytes.
        origin: What the server said of the file when the partial download began.

    Returns:
        The server's answer, and the length of what is kept of the partial download.
    """
    version, n_byte = origin.get("version"), origin.get("bytes")
    if have and (version or n_byte):
        try:
            response = _open(url, {"Range": f"bytes={have}-", **({"If-Range": version} if version else {})})
        except urllib.error.HTTPError as error:
            error.close()
            if error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
                raise
        else:
            if response.status != http.client.PARTIAL_CONTENT:
                return response, 0
            if n_byte in (None, have + int(response.headers.get("Content-Length") or 0)):
                return response, have
            response.close()
    return _open(url, {}), 0


def _version(response: Any) -> str | None:
    """What tells this version of a file from others (RFC 9110, 13.1.5); None if the server does not say."""
    tag, changed = (response.headers.get(name) for name in ("ETag", "Last-Modified"))
    found: str | None = tag if tag and not tag.startswith("W/") else changed
    return found


def _origin_file(partial: Path) -> Path:
    return partial.with_name(f"{partial.name}.json")


def _open(url: str, headers: dict[str, str]) -> Any:
    request = urllib.request.Request(url, headers={"User-Agent": f"protenix-ms/{__version__}", **headers})
    if not request.full_url.startswith(("http://", "https://")):
        raise ValueError("only http and https addresses are fetched")
    return urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
    )
