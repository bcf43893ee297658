import subprocess
import sys

import pytest
import torch
from support import cases, jobs

from protenix_multiseed.config_loading import load_config
from protenix_multiseed.errors import WeightsError
from protenix_multiseed.hashes import hash_file, sha256
from protenix_multiseed.model import demo
from protenix_multiseed.model.weights import build_model, load_model
from protenix_multiseed.run import preflight
from protenix_multiseed.run.preflight import CheckpointHash, check_sha256
from protenix_multiseed.upstream import environment
from protenix_multiseed.upstream.checkpoints import download_urls
from protenix_multiseed.upstream.dictionary import EmbeddedDictionary


def configs_of(model=cases.MODEL, **overrides):
    environment.prepare(EmbeddedDictionary())
    return jobs.configs_of(model, template=False, rna_msa=False, **overrides)


@pytest.fixture(scope="module")
def configs():
    return configs_of()


@pytest.fixture(scope="module")
def state(configs):
    return demo.fill(build_model(configs)).state_dict()


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize(("prefix", "is_new"), [("", True), ("module.", True), ("", False)])
def test_checkpoints_of_upstreams_format_are_loaded(configs, state, tmp_path, monkeypatch, prefix, is_new, mapped):
    path, load, was_mapped = tmp_path / "model.pt", torch.load, []
    monkeypatch.setattr(
        torch, "load", lambda *args, mmap, **named: was_mapped.append(mmap) or load(*args, mmap=mmap, **named)
    )
    content = {"model": {prefix + key: value for key, value in state.items()}}
    torch.save(content, path, _use_new_zipfile_serialization=is_new)
    model = load_model(configs, path, cases.MODEL, mapped=mapped)
    assert was_mapped == [mapped and is_new]
    loaded = model.state_dict()
    assert list(loaded) == list(state)
    assert all(torch.equal(loaded[key], state[key]) for key in state)
    assert not model.training
    assert not any(weight.requires_grad for weight in model.parameters())


def test_the_architecture_equals_upstreams(configs, state):
    from protenix.model.protenix import Protenix

    theirs = environment.call_quietly(Protenix, configs).state_dict()
    assert {key: (value.shape, value.dtype) for key, value in theirs.items()} == {
        key: (value.shape, value.dtype) for key, value in state.items()
    }
    assert torch.equal(
        theirs["diffusion_module.diffusion_conditioning.fourier_embedding.w"],
        build_model(configs).state_dict()["diffusion_module.diffusion_conditioning.fourier_embedding.w"],
    )


def test_buffers_outside_the_checkpoint_equal_upstreams(configs):
    from protenix.model.protenix import Protenix

    theirs = dict(environment.call_quietly(Protenix, configs).named_buffers())
    ours = dict(build_model(configs).named_buffers())
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[key], ours[key]) for key in theirs)


def test_demo_weights_are_the_same_everywhere(state):
    """If this sum changes, the results of every demo run change."""
    assert sum(value.double().sum().item() for value in state.values()) == pytest.approx(12665.97298, abs=1e-4)
    assert (
        demo.make_weight("a.weight", torch.empty(3, 3), seed=1).tolist()
        != demo.make_weight("b.weight", torch.empty(3, 3), seed=1).tolist()
    )


def write(path, content):
    torch.save(content, path)
    return path


def test_wrong_checkpoints_are_refused(configs, state, tmp_path):
    path = tmp_path / "model.pt"
    whole = write(path, {"model": state}).read_bytes()
    first = next(iter(state))
    cases_ = {
        "no checkpoint at": None,
        "is truncated or not a Protenix checkpoint": whole[: len(whole) // 2],
        "1 weights are missing": {"model": {key: value for key, value in state.items() if key != first}},
        "1 unknown": {"model": {**state, "another.weight": torch.zeros(1)}},
        "1 have another shape": {"model": {**state, first: torch.zeros(1, 2, 3)}},
        "holds no weights": {"model": {}},
        "not a Protenix checkpoint": {"weights": state},
    }
    for says, content in cases_.items():
        path.unlink()
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content is not None:
            write(path, content)
        with pytest.raises(WeightsError, match=says) as error:
            load_model(configs, path, cases.MODEL)
        assert str(path) in str(error.value)
        assert f"protenix-ms fetch {cases.MODEL}" in str(error.value)
        is_in_the_way = any(text in str(error.value) for text in ("delete it, then run", "move it away and run"))
        assert is_in_the_way == (content is not None)  # fetch keeps a file that exists
        assert download_urls()[cases.MODEL] in str(error.value)
        path.touch()


def test_code_in_a_checkpoint_is_not_run(configs, tmp_path):
    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    path = write(tmp_path / "model.pt", {"model": Payload()})
    with pytest.raises(WeightsError, match="not a Protenix checkpoint"):
        load_model(configs, path, cases.MODEL)
    assert not (tmp_path / "ran").exists()


def test_weights_missing_from_a_checkpoint_keep_their_initial_values(tmp_path):
    """Missing weights have the values of upstream's constructor, never uninitialized memory."""
    configs = configs_of("protenix_tiny_default_v0.5.0")
    assert not configs.load_strict
    state = demo.fill(build_model(configs)).state_dict()
    missing = "layernorm_s.weight"
    path = write(tmp_path / "model.pt", {"model": {key: value for key, value in state.items() if key != missing}})
    model = load_model(configs, path, "protenix_tiny_default_v0.5.0")
    assert model.missing_weights == (missing,)
    loaded = model.state_dict()
    assert torch.equal(loaded[missing], torch.ones_like(loaded[missing]))
    assert all(torch.equal(loaded[key], state[key]) for key in state if key != missing)


def test_a_checkpoint_that_differs_from_its_recorded_hash_is_refused(state, tmp_path):
    path = write(tmp_path / "model.pt", {"model": {}})
    assert check_sha256(path, cases.MODEL) == sha256(path)
    hash_file(path).write_text(f"{sha256(path)}  model.pt\n")
    assert check_sha256(path, cases.MODEL) == sha256(path)
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(WeightsError, match=r"is not the file that was fetched.*; delete it, then run"):
        check_sha256(path, cases.MODEL)


def test_a_model_is_built_in_a_process_that_has_not_imported_scipy():
    """Regression: a dry run failed, because the stand-in of SciPy's statistics hid the rest of SciPy."""
    code = (
        "import sys\n"
        "from protenix_multiseed.config_loading import load_config\n"
        "from protenix_multiseed.model.weights import build_model\n"
        "from protenix_multiseed.upstream import environment\n"
        "from protenix_multiseed.upstream.configs import build_configs\n"
        "environment.prepare_imports()\n"
        "configs = build_configs(load_config({'model': 'demo'}).upstream_settings)\n"
        "assert 'scipy' not in sys.modules\n"
        "build_model(configs)\n"
        "assert 'scipy.stats' not in sys.modules\n"
        "torch = sys.modules['torch']\n"
        "drawn = build_model(configs, initialise=True).diffusion_module.linear_no_bias_s.weight\n"
        "assert 'scipy.stats' in sys.modules and torch.isfinite(drawn).all()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


def test_whatever_hinders_the_check_of_a_checkpoint_is_an_error(state, tmp_path, monkeypatch):
    """Regression: an error that nobody expected ended the thread, and the run went on as if it had no checkpoint."""
    path = write(tmp_path / "model.pt", {"model": {}})
    config = load_config({"model": "protenix_tiny_default_v0.5.0", "checkpoint": path})
    assert CheckpointHash(config).result() == sha256(path)

    def fail(*_):
        raise RecursionError("a damaged cache")

    monkeypatch.setattr(preflight, "check_sha256", fail)
    with pytest.raises(RecursionError, match="a damaged cache"):
        CheckpointHash(config).result()
