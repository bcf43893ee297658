"""Search on a server that speaks ColabFold's protocol (MMseqs2-App): submit, wait for the ticket, download.

A sequence leaves the machine only through this module, and only to the address that the user names. The server's
limits are obeyed: one ticket at a time, and a wait after every answer that says so.
"""

import random
import socket
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

from protenix_multiseed import __version__
from protenix_multiseed.inputs.alignments import MAX_BYTES
from protenix_multiseed.search.archive import (
    FIRST_NUMBER,
    DamagedArchiveError,
    paired_of,
    read_archive,
    unpaired_of,
)
from protenix_multiseed.search.base import Found, QueryError, SearchError, Tell

UNPAIRED_MODE = "env"  # UniRef30 and environmental sequences, filtered
PAIRED_MODE = "pairgreedy"  # also rows that only some of the chains have
MAX_TRIES = 6  # of a request that fails
MAX_UNRESOLVED = 2  # tries to find the address of the server's name, if it has never been found
MAX_UNKNOWN = 10  # answers in a row that the server does not know a ticket: some six minutes
MAX_TICKETS = 3  # for the same sequences
MAX_DOWNLOADS = 3  # of an archive that is damaged
_TIMEOUT = (10, 60)  # seconds to connect, and without a byte
_FIRST_WAIT, _LONGEST_WAIT = 5.0, 60.0  # seconds
_BLOCK = 1 << 20


class Server:
    """See :class:`protenix_multiseed.search.base.Searcher`.

    Args:
        url: Address of the server. A user name and password are read from ``~/.netrc``.
        tell: Receives each wait and its reason.
        pause: Waits some seconds.
    """

    batch = 10

    def __init__(self, url: str, tell: Tell, pause: Callable[[float], None] = time.sleep) -> None:
        self._url, self._tell, self._pause = url.rstrip("/"), tell, pause
        self._host = urlsplit(self._url).hostname or url
        self.name = f"{self._url} {UNPAIRED_MODE} {PAIRED_MODE}"
        self._has_answered = False
        self._session = requests.Session()
        self._session.headers["User-Agent"] = f"protenix-ms/{__version__}"

    def search(self, sequences: Sequence[str]) -> list[Found]:
        """See :class:`protenix_multiseed.search.base.Searcher`."""
        return self._ask("ticket/msa", UNPAIRED_MODE, sequences, unpaired_of)

    def pair(self, sequences: Sequence[str]) -> list[str] | None:
        """See :class:`protenix_multiseed.search.base.Searcher`."""
        return self._ask("ticket/pair", PAIRED_MODE, sequences, paired_of)

    def _ask(self, path: str, mode: str, sequences: Sequence[str], read: Callable[..., list[Any]]) -> list[Any]:
        query = "".join(f">{number}\n{one}\n" for number, one in enumerate(sequences, start=FIRST_NUMBER))
        ticket = self._finished(path, {"q": query, "mode": mode})
        problem = ""
        for _ in range(MAX_DOWNLOADS):
            with tempfile.TemporaryDirectory(prefix="protenix-ms-") as folder:
                try:
                    return read(read_archive(self._download(ticket, Path(folder) / "archive")), sequences)
                except DamagedArchiveError as error:
                    problem = str(error)
                    self._tell(f"{self._host}: the result is damaged ({problem}), downloading it again")
        raise QueryError(f"{self._host} sent a damaged result {MAX_DOWNLOADS} times: {problem}")

    def _finished(self, path: str, data: dict[str, str]) -> str:
        """Submit sequences, again if the server forgets them. Return the ticket, once its result is complete."""
        for _ in range(MAX_TICKETS):
            ticket = self._submit(path, data)
            if self._wait_for(ticket):
                return ticket
            self._tell(f"{self._host}: the server has forgotten the sequences, submitting them again")
        raise SearchError(
            f"{self._host}: the server forgot the sequences {MAX_TICKETS} times; run the same command again later"
        )

    def _submit(self, path: str, data: dict[str, str]) -> str:
        """Submit sequences. Return the ticket, once the server has taken them."""
        wait = _FIRST_WAIT
        for _ in range(MAX_UNKNOWN):
            content = self._request("post", path, data=data)
            if self._status(content) != "UNKNOWN":
                return str(content["id"])
            wait = self._sleep("the server is not ready", wait)
        raise SearchError(
            f"{self._host}: the server is not ready, {MAX_UNKNOWN} times; run the same command again later"
        )

    def _wait_for(self, ticket: str) -> bool:
        """Wait for a ticket. Return False if the server does not know it, as after a restart."""
        wait, begun, n_unknown = _FIRST_WAIT, time.monotonic(), 0
        while (status := self._status(self._request("get", f"ticket/{ticket}"))) != "COMPLETE":
            n_unknown = n_unknown + 1 if status == "UNKNOWN" else 0
            if n_unknown == MAX_UNKNOWN:
                return False
            wait = self._sleep(f"{status.lower()} for {time.monotonic() - begun:.0f} s", wait)
        return True

    def _download(self, ticket: str, target: Path) -> Path:
        for _ in range(MAX_TRIES):
            with self._send("get", f"result/download/{ticket}", stream=True) as answer, target.open("wb") as file:
                try:
                    for block in answer.iter_content(_BLOCK):
                        file.write(block)
                        if file.tell() > MAX_BYTES:
                            raise QueryError(f"{self._host}: the result has more than {MAX_BYTES} bytes")
                    return target
                except requests.RequestException as error:
                    problem = f"the download broke off ({_reason(error)})"
            self._sleep(problem, _FIRST_WAIT)
        raise SearchError(f"{self._host}: {problem}, {MAX_TRIES} times; run the same command again later")

    def _status(self, content: dict[str, Any]) -> str:
        """Return the status in an answer.

        Raises:
            QueryError: if the server failed with these sequences.
            SearchError: if the server does not work now.
        """
        match status := str(content.get("status", "")).upper():
            case "UNKNOWN":
                return status
            case "PENDING" | "RUNNING" | "COMPLETE" if content.get("id"):
                return status
            case "ERROR":
                raise QueryError(f"{self._host} cannot search it (status ERROR)")
            case "MAINTENANCE":
                raise SearchError(f"{self._host} is under maintenance; run the same command again later")
        raise SearchError(f"{self._host} does not answer as a ColabFold server does: {str(content)[:100]}")

    def _request(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        with self._send(method, path, **options) as answer:
            return _content(answer)

    def _send(self, method: str, path: str, **options: Any) -> requests.Response:
        """Send a request, again after failures that may pass. Redirects are not followed: they may lead elsewhere."""
        wait, tries = _FIRST_WAIT, 0
        while True:
            told = None
            try:
                answer = self._session.request(
                    method, f"{self._url}/{path}", timeout=_TIMEOUT, allow_redirects=False, **options
                )
            except requests.exceptions.SSLError as error:
                raise SearchError(f"{self._host}: its certificate is not accepted ({_reason(error)})") from None
            except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema) as error:
                raise SearchError(f"{self._host}: {_reason(error)}; write for example https://host/path") from None
            except requests.RequestException as error:
                problem = f"no answer ({_reason(error)})"
                is_unresolved = isinstance(_cause(error), socket.gaierror) and not self._has_answered
                if is_unresolved and tries == MAX_UNRESOLVED - 1:
                    raise SearchError(
                        f"{self._host}: this machine finds no address for the name ({_reason(error)}): is it spelt "
                        "right, and is the machine on the network?"
                    ) from None
            else:
                self._has_answered = True
                if answer.status_code == requests.codes.ok and options.get("stream"):
                    return answer
                status = _content(answer).get("status")
                if answer.status_code == requests.codes.too_many_requests or status == "RATELIMIT":
                    problem, told = "the server limits the rate of requests", _retry_after(answer)
                    tries = -1  # it may take as long as it takes
                elif answer.status_code == requests.codes.ok or status:
                    return answer
                elif answer.is_redirect:
                    raise SearchError(f"{self._host} refers to {answer.headers['location']}: name that address")
                elif answer.status_code < 500:
                    raise SearchError(
                        f"{self._host}: HTTP status {answer.status_code} {answer.reason}: is this the address of a "
                        "ColabFold server, and are user name and password in ~/.netrc if it asks for them?"
                    )
                else:
                    problem = f"HTTP status {answer.status_code} {answer.reason}"
                answer.close()
            tries += 1
            if tries == MAX_TRIES:
                raise SearchError(f"{self._host}: {problem}, {MAX_TRIES} times; run the same command again later")
            wait = self._sleep(problem, wait, told)

    def _sleep(self, reason: str, seconds: float, told: float | None = None) -> float:
        """Wait, and say why. Return how long the next wait is.

        Args:
            told: Seconds that the server asks for; None if it does not say.
        """
        own = seconds + random.uniform(0, seconds / 5)  # many clients should not come at once
        wait = own if told is None else max(told, _FIRST_WAIT)
        self._tell(f"{self._host}: {reason}; waiting {wait:.0f} s")
        self._pause(wait)
        return min(_LONGEST_WAIT, seconds * 1.5)


def _content(answer: requests.Response) -> dict[str, Any]:
    try:
        content = answer.json()
    except requests.JSONDecodeError:
        content = answer.text
    return content if isinstance(content, dict) else {"answer": content}


def _retry_after(answer: requests.Response) -> float | None:
    """Seconds that the server asks to wait, at most an hour; None if it does not say, or says a date."""
    text = answer.headers.get("Retry-After", "")
    return min(3600.0, float(text)) if text.isdigit() else None


def _cause(error: BaseException) -> BaseException:
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return error


def _reason(error: requests.RequestException) -> str:
    """The innermost reason of an error: the outer ones repeat the address."""
    inner = _cause(error)
    return (str(inner) or type(inner).__name__).splitlines()[0][:200]
