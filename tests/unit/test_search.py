"""Searching alignments: what jobs lack, the server's protocol with all its faults, and the files that are kept."""

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import msa_server as fake
from support.inputs import job as job_text
from support.inputs import protein
from support.jobs import job_of

from protenix_multiseed.search.archive import paired_header
from protenix_multiseed.search.base import Found, QueryError, SearchError
from protenix_multiseed.search.mmseqs import TAXONOMY, find_databases
from protenix_multiseed.search.need import complex_of, need_of
from protenix_multiseed.search.run import search_jobs
from protenix_multiseed.search.server import MAX_DOWNLOADS, MAX_TICKETS, MAX_TRIES, MAX_UNKNOWN, Server

A, B, C = "MKTAYIAKQR", "GHKLMNPQRS", "WWYYFFLLII"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PROTENIX_MS_CACHE", str(tmp_path / "cache"))


def chain(sequence, **more):
    return protein(sequence=sequence, **more)


def jobs_of(*complexes):
    return [
        job_of(job_text(*(chain(one) for one in chains))[0], name=f"job{number}")
        for number, chains in enumerate(complexes)
    ]


class Waits(list):
    """A server whose waits take no time. The list holds them."""

    def server(self, server):
        self.told = []
        return Server(server.url, self.told.append, pause=self.append)


def test_what_jobs_lack_is_asked_once():
    jobs = jobs_of([A, B, A], [B, A], [C], ["MKTA"])
    need = need_of((job.spec for job in jobs), ["protein"])
    assert need.proteins == (A, B, C)  # a chain of four residues gets none
    assert need.complexes == (tuple(sorted((A, B))),)
    assert need.rnas == ()


def test_a_chain_with_an_alignment_lacks_none():
    given = job_of(job_text(chain(A, unpairedMsa=f">q\n{A}\n"), chain(B, pairedMsa=""), chain(C))[0])
    need = need_of([given.spec], ["protein", "rna"])
    assert (need.proteins, need.complexes) == ((C,), ())


@given(st.lists(st.lists(st.sampled_from([A, B, C]), min_size=1, max_size=4), max_size=5))
def test_every_distinct_chain_and_complex_is_needed_once(complexes):
    jobs = jobs_of(*complexes)
    need = need_of((job.spec for job in jobs), ["protein"])
    assert sorted(need.proteins) == sorted({one for chains in complexes for one in chains})
    together = {tuple(sorted(set(chains))) for chains in complexes if len(set(chains)) > 1}
    assert sorted(need.complexes) == sorted(together)
    assert len(set(need.complexes)) == len(need.complexes)


def test_alignments_of_a_server_reach_the_chains(tmp_path):
    jobs = jobs_of([A, B], [A])
    with fake.msa_server() as server:
        made = search_jobs(jobs, {"protein": Waits().server(server)}, tmp_path / "out", print)
        assert server.submitted == [
            ("msa", "env", (A, B)),
            ("pair", "pairgreedy", tuple(sorted((A, B)))),
        ]
    assert not made.failures
    (_, two), (_, one) = made.specs
    assert two.entities[0].unpaired == one.entities[0].unpaired
    assert one.entities[0].paired is None
    rows = [(f">{header}", row) for name in ("uniref", "env") for header, row in fake.unpaired_rows(A, name)]
    lines = one.entities[0].unpaired.file.path.read_text().splitlines()
    assert list(zip(lines[::2], lines[1::2], strict=True)) == [(">query", A), *rows]


def test_row_k_of_a_chain_is_paired_with_row_k_of_the_others(tmp_path):
    """Protenix's own pairing finds the server's rows again."""
    from protenix.data.constants import PROTEIN_CHAIN
    from protenix.data.msa.msa_utils import MSAPairingEngine, RawMsa

    with fake.msa_server() as server:
        made = search_jobs(jobs_of([A, B]), {"protein": Waits().server(server)}, tmp_path, print)
    chains = []
    for number, polymer in enumerate(made.specs[0][1].entities):
        features = RawMsa.from_a3m(
            polymer.sequence, PROTEIN_CHAIN, polymer.paired.file.path.read_text(), dedup=False
        ).featurize()
        chains.append({f"{key}_all_seq": value for key, value in features.items()} | {"chain_id": str(number)})
    paired = MSAPairingEngine.pair_chains_by_species(chains, 100, {"0", "1"}, 600)
    assert fake.paired_rows(sorted((A, B))).keys() == {A, B}
    rows = fake.paired_rows(sorted((A, B)))
    for polymer, features in zip(made.specs[0][1].entities, paired, strict=True):
        wanted = [polymer.sequence, rows[polymer.sequence][0][1], rows[polymer.sequence][2][1]]
        text = "".join(f">x\n{row}\n" for row in wanted)
        expected = RawMsa.from_a3m(polymer.sequence, PROTEIN_CHAIN, text, dedup=False).featurize()["msa"]
        assert (features["msa_all_seq"][:3] == expected).all()


def test_nothing_is_asked_twice(tmp_path):
    with fake.msa_server() as server:
        for folder in ("first", "second"):  # another folder takes it from the cache
            searcher = Waits().server(server)
            made = search_jobs(jobs_of([A, B], [B]), {"protein": searcher}, tmp_path / folder, print)
            assert len(made.specs) == 2
            assert all(str(tmp_path / folder) in str(one.unpaired.file.path) for one in made.specs[0][1].entities)
        assert len(server.submitted) == 2


def test_a_cache_that_cannot_be_written_costs_only_time(tmp_path, monkeypatch):
    """Regression: the cache was written first, and its error ended the run with nothing in the user's folder."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PROTENIX_MS_CACHE", str(tmp_path / "file"))
    told = []
    with fake.msa_server() as server:
        made = search_jobs(jobs_of([A, B], [C]), {"protein": Waits().server(server)}, tmp_path / "out", told.append)
    assert len(made.specs) == 2
    assert all(one.unpaired.file.path.parent == tmp_path / "out" for _, spec in made.specs for one in spec.entities)
    assert [one for one in told if "cache" in one] == [
        f"the cache {tmp_path / 'file' / 'msa'} cannot be written (Not a directory): searches are not kept there"
    ]


@pytest.mark.parametrize(
    ("faults", "told"),
    [
        ({"submit": ["ratelimit", "ratelimit"]}, "the server limits the rate of requests; waiting 5 s"),
        ({"status": ["ratelimit"]}, "the server limits the rate of requests; waiting 5 s"),
        ({"submit": ["UNKNOWN"] * (MAX_UNKNOWN - 1)}, "the server is not ready"),
        ({"status": ["UNKNOWN"]}, "unknown for"),
        ({"status": ["PENDING", "RUNNING"]}, "running for"),
        ({"submit": ["drop"], "status": ["drop"]}, "no answer"),
        ({"submit": [502]}, "HTTP status 502"),
        ({"download": ["drop"]}, "the download broke off"),
        ({"download": ["damaged"]}, "the result is damaged"),
        ({"download": ["other rows"]}, "not the sequence of the ticket"),
        ({"download": ["cut row"]}, "row 4 of an alignment in it is cut short"),
        ({"download": [503, "ratelimit"]}, "HTTP status 503"),
    ],
)
def test_a_fault_that_passes_is_told_and_waited_for(faults, told, tmp_path):
    with fake.msa_server(faults) as server:
        waits = Waits()
        made = search_jobs(jobs_of([A]), {"protein": waits.server(server)}, tmp_path, print)
    assert len(made.specs) == 1
    assert not made.failures
    assert told in "\n".join(waits.told)
    assert not any(any(one) for one in server.faults.values()), "each fault was met"


@pytest.mark.parametrize(
    ("faults", "message"),
    [
        ({"submit": ["MAINTENANCE"]}, "under maintenance"),
        ({"submit": ["drop"] * MAX_TRIES}, "no answer"),
        ({"submit": ["UNKNOWN"] * MAX_UNKNOWN}, "is not ready, 10 times"),
        ({"status": ["UNKNOWN"] * MAX_UNKNOWN * MAX_TICKETS}, "forgot the sequences 3 times"),
        ({"submit": [500] * MAX_TRIES}, "HTTP status 500"),
        ({"submit": [401]}, "user name and password"),
        ({"submit": [404]}, "is this the address of a ColabFold server"),
        ({"submit": ["redirect"]}, "refers to https://elsewhere.example: name that address"),
        ({"submit": ["COFFEE"]}, "does not answer as a ColabFold server does"),
        ({"download": ["drop"] * MAX_TRIES}, "the download broke off"),
    ],
)
def test_a_server_that_does_not_work_ends_the_search_and_says_why(faults, message, tmp_path):
    with fake.msa_server(faults) as server, pytest.raises(SearchError, match=message):
        search_jobs(jobs_of([A]), {"protein": Waits().server(server)}, tmp_path, print)


def test_sequences_that_a_server_forgets_are_submitted_again(tmp_path):
    """Regression: a ticket of a server that was restarted was asked for without end."""
    with fake.msa_server({"status": ["RUNNING", *["UNKNOWN"] * MAX_UNKNOWN]}) as server:
        waits = Waits()
        made = search_jobs(jobs_of([A]), {"protein": waits.server(server)}, tmp_path, print)
        assert [sequences for _, _, sequences in server.submitted] == [(A,), (A,)]
    assert len(made.specs) == 1
    assert any("has forgotten the sequences" in one for one in waits.told)
    assert sum(waits) > 200  # seconds: a server that starts gets time


def test_a_server_that_is_not_there(tmp_path):
    with fake.msa_server() as server:
        gone = server.url
    waits = []
    with pytest.raises(SearchError, match="no answer"):
        search_jobs(jobs_of([A]), {"protein": Server(gone, print, pause=waits.append)}, tmp_path, print)
    assert len(waits) == MAX_TRIES - 1
    assert waits == sorted(waits)


def test_a_name_without_an_address_is_refused_after_two_tries(tmp_path, monkeypatch):
    def fail(*arguments):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    waits = []
    server = Server("http://no.such.invalid", print, pause=waits.append)
    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(SearchError, match=r"no\.such\.invalid: this machine finds no address for the name"):
        search_jobs(jobs_of([A]), {"protein": server}, tmp_path, print)
    assert len(waits) == 1


def test_a_name_that_had_an_address_is_tried_as_often_as_a_lost_connection(monkeypatch):
    def fail(*arguments):
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    waits = []
    with fake.msa_server() as answering:
        server = Server(answering.url, print, pause=waits.append)
        server.search([A])
    waits.clear()
    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(SearchError, match="no answer"):
        server.search([B])
    assert len(waits) == MAX_TRIES - 1


def test_one_sequence_that_fails_affects_only_its_jobs(tmp_path):
    jobs = jobs_of([A], [B], [A, B], [A, C])
    with fake.msa_server(poison=[B]) as server:
        made = search_jobs(jobs, {"protein": Waits().server(server)}, tmp_path, print)
    assert [job.name for job, _ in made.specs] == ["job0", "job3"]
    assert len(made.failures) == 2
    assert all("no alignment for protein" in one and "status ERROR" in one for one in made.failures)


def test_a_result_that_stays_damaged_fails_the_sequence(tmp_path):
    with fake.msa_server({"download": ["damaged"] * MAX_DOWNLOADS}) as server:
        made = search_jobs(jobs_of([A]), {"protein": Waits().server(server)}, tmp_path, print)
    assert "damaged result 3 times" in made.failures[0]


def test_what_was_found_before_a_failure_is_kept(tmp_path):
    with fake.msa_server({"status": []}) as server:
        searcher = Waits().server(server)
        searcher.batch = 1
        server.faults["status"] = ["COMPLETE", "MAINTENANCE"]
        with pytest.raises(SearchError):
            search_jobs(jobs_of([A], [B]), {"protein": searcher}, tmp_path, print)
        search_jobs(jobs_of([A], [B]), {"protein": searcher}, tmp_path, print)
        assert [sequences for _, _, sequences in server.submitted] == [(A,), (B,), (B,)]


@given(st.text(max_size=30), st.integers(1, 99999))
def test_protenix_reads_the_species_of_any_header(header, species):
    from protenix.data.msa.msa_utils import MSAPairingEngine

    assert MSAPairingEngine.get_species_ids([paired_header(header, str(species))]) == [str(species)]


def test_a_source_that_cannot_pair_says_so(tmp_path):
    class Alone:
        name, batch = "alone", 5

        def search(self, sequences):
            return [Found(unpaired=f">query\n{one}\n") for one in sequences]

        def pair(self, sequences):
            return None

    told = []
    made = search_jobs(jobs_of([A, B]), {"protein": Alone()}, tmp_path, told.append)
    assert all(one.paired is None and one.unpaired for one in made.specs[0][1].entities)
    assert any("not paired" in one for one in told)


def test_complexes_of_one_sequence_are_not_paired():
    assert complex_of(jobs_of([A, A])[0].spec.entities) == ()


def test_a_query_error_names_the_server():
    with fake.msa_server(poison=[A]) as server, pytest.raises(QueryError, match=r"127\.0\.0\.1"):
        Waits().server(server).search([A])


def test_a_taxonomy_that_is_added_to_a_database_makes_it_another_one(tmp_path):
    """Else the unpaired alignments that were found before would be used for ever."""
    (tmp_path / "db.dbtype").touch()
    (database,) = find_databases(tmp_path / "db")
    before = database.name
    for ending in TAXONOMY:
        (tmp_path / f"db{ending}").touch()
    assert database.name != before
    assert database.name == find_databases(tmp_path / "db")[0].name
