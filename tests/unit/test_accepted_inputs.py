"""Whatever the checks accept can be featurized, and has the counted sizes.

``PROTENIX_MS_EXAMPLES`` sets how many jobs are made; ``make torture`` makes 3,000.
"""

import json
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.generated import jobs, write_files

from protenix_multiseed.errors import RefusedInputsError
from protenix_multiseed.inputs.read import read_jobs
from protenix_multiseed.settings import FeatureSettings, InputRules, ReadSettings
from protenix_multiseed.upstream.dictionary import EmbeddedDictionary
from protenix_multiseed.upstream.environment import prepare

EXAMPLES = int(os.environ.get("PROTENIX_MS_EXAMPLES", "40"))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("jobs")
    dictionary = EmbeddedDictionary()
    prepare(dictionary)
    write_files(folder)
    return folder, dictionary


@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), derandomize=EXAMPLES < 1000)
@given(job=jobs(), exact=st.booleans())
def test_what_is_accepted_can_be_featurized(world, job, exact):
    from protenix_multiseed.features.featurize import featurize
    from protenix_multiseed.features.sizes import count_sizes

    folder, dictionary = world
    path = folder / "in.json"
    path.write_text(json.dumps([job]))
    reads = ReadSettings(msa=True, rna_msa=True, exact=exact)
    try:
        (accepted,) = read_jobs([path], (1,), InputRules(model="m", reads=reads), dictionary)
    except RefusedInputsError:
        return
    settings_ = FeatureSettings(reads=reads)
    sizes = count_sizes(accepted.spec, settings_)
    (features,) = featurize(accepted, settings_)
    assert (features.n_token, features.n_atom, features.n_msa) == (sizes.n_token, sizes.n_atom, sizes.n_msa)
