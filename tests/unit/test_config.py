import re
from pathlib import Path

import pytest
import yaml

from protenix_multiseed.config import RunConfig
from protenix_multiseed.config_loading import load_config
from protenix_multiseed.errors import ConfigError
from protenix_multiseed.settings import UpstreamSettings
from protenix_multiseed.upstream.configs import build_configs
from protenix_multiseed.upstream.models import model_names, model_spec

MODEL = "protenix_base_default_v1.0.0"
REPOSITORY = Path(__file__).resolve().parents[2]


def write(folder, text):
    path = folder / "run.yaml"
    path.write_text(text)
    return path


def test_options_override_yaml_and_yaml_overrides_presets_and_defaults(tmp_path):
    file = write(tmp_path, "model: protenix_mini_default_v0.5.0\nsteps: 7\nsamples: 3\n")
    config = load_config({"samples": 2, "steps": None}, file)
    assert (config.samples, config.steps, config.cycles, config.device) == (2, 7, 4, "auto")


def test_presets_equal_upstreams():
    from configs.configs_model_type import model_configs

    assert set(model_names()) == {*model_configs, "demo"}
    for name, settings in model_configs.items():
        config = load_config({"model": name})
        assert config.cycles == settings["model"]["N_cycle"]
        assert config.steps == settings.get("sample_diffusion", {}).get("N_step", 200)
    assert load_config({"model": "protenix_mini_esm_v0.5.0"}).msa is False
    assert load_config({"model": "protenix_mini_esm_v0.5.0", "msa": True}).msa is True


def test_an_environment_variable_turns_on_sequential(monkeypatch):
    monkeypatch.setenv("PROTENIX_NOBATCHED_SEEDS", "1")
    assert load_config({}).sequential is True
    monkeypatch.setenv("PROTENIX_NOBATCHED_SEEDS", "0")
    assert load_config({}).sequential is False


def test_yaml_whose_aliases_multiply_gets_a_short_message(tmp_path):
    """Ten lines of aliases expand to a billion words. A message with the expanded text would fill the memory."""
    lines = ["a0: &a0 x"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    file = write(tmp_path, "\n".join([*lines, "samples: *a9"]))
    with pytest.raises(ConfigError) as error:
        load_config({}, file)
    assert len(str(error.value)) < 5000


def test_folders_and_huge_files_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="not a file"):
        load_config({}, tmp_path)
    with pytest.raises(ConfigError, match="larger than"):
        load_config({}, write(tmp_path, "#" * 2**21))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("samplse: 3", "run.yaml: samplse: unknown key; did you mean 'samples'"),
        ("templates: {kalin: x}", "templates.kalin: unknown key; did you mean 'kalign'"),
        ("templates: 3", "run.yaml: templates: expected an object, found number"),
        ("a: [", "run.yaml: line 1, column 5: not valid YAML"),
        ("- 1", "expected lines of 'key: value'"),
        ("samples: 0", "samples: input should be greater than or equal to 1, found 0"),
        ("max_jobs_per_batch: 0", "max_jobs_per_batch: input should be greater than or equal to 1, found 0"),
        ("seeds: 3-1", "runs backwards"),
        ("seeds: [1, 1]", "seed 1 is given twice"),
        ("seeds: {a: 1}", "seeds: write for example 1-5"),
        ("model: protenix_v2", "run.yaml: model: 'protenix_v2' is not known; did you mean 'protenix-v2'"),
        ("device: gpu", "device"),
        ("model: demo\ncheckpoint: x.pt", "the demo model makes its own weights"),
        ("model: protenix_base_default_v0.5.0\ntemplate: true", "was not trained with it"),
        ("model: protenix_base_default_v0.5.0\ntemplate_from_input: true", "was not trained with it"),
        ("seeds: true", "seeds: write for example 1-5"),
        ("seeds: yes", "seeds: 'yes' is neither a seed nor a range"),
        ("seeds: 1:30", "seeds: '1:30' is neither a seed nor a range"),
        ("cycles: true", "cycles: write a number, not true"),
        ("samples: 1\nsamples: 2", "line 1, column 1: not valid YAML: the key 'samples' is given twice"),
        ("seeds: &x [1]\nmodel: *x", "aliases are not allowed"),
        ("out: ~nobody-here/x", "out: ~nobody-here/x: no such home folder"),
        ("upstream: {sample_diffusion.guidance.enable: true}", "use the key guidance instead"),
        ("upstream: {data.template.release_dates_path: x}", "it has no effect here"),
        ("upstream: {dtype: fp16}", "upstream.dtype: 'fp16' cannot be run; choose one of bf16, fp32"),
        ("upstream: {model.pairformer.n_blocks: three}", "upstream.model.pairformer.n_blocks: expected int"),
        ("upstream: {model.pairformr.n_blocks: 3}", "Protenix has no such setting"),
        ("offline: true\ntemplates: {fetch: true}", "cannot be fetched with --offline"),
    ],
)
def test_invalid_settings_are_refused(tmp_path, text, says):
    with pytest.raises(ConfigError) as error:
        load_config({}, write(tmp_path, text))
    assert says in str(error.value)


def test_all_mistakes_of_a_file_are_named_with_the_file_and_the_key(tmp_path):
    with pytest.raises(ConfigError) as error:
        load_config({"samples": 0}, write(tmp_path, "sampels: 3\nsteps: lots\nseeds: 1-\n"))
    lines = str(error.value).splitlines()
    starts = ("run.yaml: seeds: '1-'", "--samples: ", "run.yaml: steps: ", "run.yaml: sampels: ")
    assert [line.startswith(start) for line, start in zip(lines, starts, strict=True)] == [True] * 4
    with pytest.raises(ConfigError) as error:
        load_config({"seeds": "1-"})
    assert str(error.value).startswith("--seeds: '1-'")
    with pytest.raises(ConfigError) as error:
        load_config({"seeds": "1,1,2,2"})
    assert [line.split(":")[0] for line in str(error.value).splitlines()] == ["--seeds"] * 2


def test_coordinates_as_templates_switch_templates_on():
    config = load_config({"template_from_input": True})
    assert config.input_rules.template_from_input
    assert config.read_settings.template
    assert not load_config({}).read_settings.template


@pytest.mark.parametrize(("store", "kept"), [("full", None), ("slim", 1), ("top:3", 3)])
def test_store_sets_the_number_of_kept_structures(store, kept):
    assert load_config({"store": store}).write_settings.kept == kept


def test_only_sequential_writes_structures_as_protenix_does():
    exact = [load_config(given).write_settings.as_protenix for given in ({"sequential": True}, {"guidance": True})]
    assert exact == [True, False]


@pytest.mark.parametrize(("options", "says"), [
    ({"store": "top:0"}, "--store: write full (all structures), slim"),
    ({"store": "best"}, "slim (the best one of each seed) or top:K (the K best, such as top:3); found 'best'"),
    ({"store": "slim", "pae": "npz"}, "--store slim keeps no per-pair errors, but --pae asks for them; use"),
    ({"store": "slim", "full_confidence": True}, "--full-confidence asks for them"),
    ({"pae": "csv"}, "--pae: input should be 'none', 'json' or 'npz'"),
])  # fmt: skip
def test_invalid_storage_options_are_refused(options, says):
    with pytest.raises(ConfigError, match=re.escape(says)):
        load_config(options)


def test_missing_file(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load_config({}, tmp_path / "no.yaml")


@pytest.mark.parametrize("path", sorted((REPOSITORY / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_example_configurations_are_valid(path):
    assert isinstance(load_config({}, path), RunConfig)


def test_all_settings_yaml_names_every_key():
    text = (REPOSITORY / "configs" / "all_settings.yaml").read_text()
    uncommented = "\n".join(line.removeprefix("# ") for line in text.splitlines() if not line.startswith("## "))
    assert set(yaml.safe_load(uncommented)) == set(RunConfig.model_fields)


def test_unknown_upstream_setting_is_refused():
    with pytest.raises(ConfigError, match=r"upstream\.model\.pairformr\.n_blocks: Protenix has no such setting"):
        build_configs(UpstreamSettings(model=MODEL, overrides={"model.pairformr.n_blocks": 1}))


def test_old_gpus_get_upstreams_settings():
    configs = build_configs(UpstreamSettings(model=MODEL), kernels="cuequivariance", device_capability=(7, 0))
    assert (configs.dtype, configs.triangle_attention, configs.triangle_multiplicative) == ("fp32", "torch", "torch")


@pytest.mark.parametrize("model", ["protenix-v2", "protenix_base_default_v1.0.0"])
@pytest.mark.parametrize("n_token", [1, 2560, 2561, 3840, 3841, 5000])
def test_precision_rules_equal_upstreams(model, n_token):
    from ml_collections.config_dict import ConfigDict
    from runner.inference import update_inference_configs

    configs = ConfigDict({"model_name": model, "skip_amp": {"confidence_head": None, "sample_diffusion": None}})
    with configs.skip_amp.ignore_type():
        if model == "protenix-v2" and n_token > 2560:
            with pytest.raises(AssertionError):
                update_inference_configs(configs, n_token)
            return
        update_inference_configs(configs, n_token)
    assert model_spec(model).skip_amp(n_token) == configs.skip_amp.to_dict()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"msa_server": "https://a.example", "msa_database": Path("db")}, "msa_database is given too"),
        ({"msa_server": "https://a.example", "offline": True}, "with --offline"),
        ({"msa_server": "a.example"}, "is not an address"),
        ({"msa_server": "https://me:secret@a.example"}, r"~/\.netrc"),
        ({"msa_gpu": True}, "only a search in msa_database"),
    ],
)
def test_searches_that_cannot_be_made(options, message):
    with pytest.raises(ConfigError, match=message):
        load_config({"model": "demo", **options})


ESM = "protenix_mini_esm_v0.5.0"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"gpus": 2, "model": ESM}, "gpus: protenix_mini_esm_v0.5.0 embeds its proteins"),
        ({"executor": "ray", "model": ESM}, "executor: protenix_mini_esm_v0.5.0 embeds its proteins"),
        ({"ray": "auto", "gpus": "1", "model": ESM}, "ray: protenix_mini_esm_v0.5.0 embeds its proteins"),
        ({"executor": "ray", "device": "cuda:1"}, "device: cuda:1 is one GPU; leave it out, or leave executor out"),
        ({"gpus": "0,2", "device": "cuda:1"}, "device: cuda:1 is one GPU; leave it out, or leave gpus out"),
        ({"ray": "auto", "gpus": "0,2"}, "gpus: 0,2 names GPUs of this machine"),
        ({"executor": "toy", "gpus": 2}, "executor: 'toy' does not use gpus; leave one of the two out"),
        ({"executor": "toy", "ray": "auto"}, "executor: 'toy' does not use ray; leave one of the two out"),
        ({"assume_free": -5}, "assume_free: input should be greater than or equal to 1, found -5"),
        ({"assume_free": 0}, "assume_free: input should be greater than or equal to 1, found 0"),
    ],
)
def test_settings_that_do_not_go_with_several_gpus_are_refused(settings, says, tmp_path):
    """Regression: ``executor: ray`` in a YAML file was not checked, and another executor became ray with ``gpus``."""
    with pytest.raises(ConfigError, match=re.escape(says)):
        load_config({}, write(tmp_path, yaml.safe_dump({"model": "demo", **settings})))


@pytest.mark.parametrize(
    ("settings", "executor"),
    [
        ({}, "local"), ({"gpus": "1"}, "local"), ({"gpus": "1", "model": ESM}, "local"), ({"gpus": "all"}, "ray"),
        ({"ray": "auto"}, "ray"), ({"executor": "ray"}, "ray"), ({"executor": "toy"}, "toy"),
    ],
)  # fmt: skip
def test_gpus_choose_the_executor(settings, executor):
    assert load_config({"model": "demo", **settings}).executor == executor


@pytest.mark.parametrize(("options", "message"), [
    ({"device": "gpu"}, "--device: write auto, cpu, cuda or cuda:1; found 'gpu'"),
    ({"store": "best"}, "--store: write full (all structures), slim (the best one of each seed) or top:K"),
    ({"model": "protenix_base"}, "did you mean 'protenix_base_default_v1.0.0'?"),
])  # fmt: skip
def test_a_wrong_value_is_answered_with_what_can_be_written(options, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_config(options)


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    """Regression: a folder named ~ was made."""
    monkeypatch.setenv("HOME", str(tmp_path))
    made = load_config({}, write(tmp_path, "out: ~/a\nrna_databases: [~/b.fa, c.fa]\ntemplates: {mmcif_dir: ~/d}"))
    assert (made.out, made.templates.mmcif_dir) == (tmp_path / "a", tmp_path / "d")
    assert made.rna_databases == (tmp_path / "b.fa", Path("c.fa"))
