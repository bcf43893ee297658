"""Run upstream's own runner on input files, one file and seed at a time. The tests compare with the files it writes.

    python upstream_run.py REQUEST.json

REQUEST names the files, seeds, output folder, architecture and switches. It may also be a list of such requests.
Everything goes through upstream's
``runner.inference``: ``InferenceRunner`` and ``infer_predict``. One thing is replaced: upstream draws the conformer
of a SMILES ligand unseeded; here it is drawn with a seed.
"""

import json
import logging
import sys
from pathlib import Path

import torch
from configs.configs_base import configs as configs_base
from configs.configs_data import data_configs
from configs.configs_inference import inference_configs
from configs.configs_model_type import model_configs
from ml_collections.config_dict import ConfigDict
from protenix.config.config import parse_configs
from protenix.data.core import ccd
from protenix.data.inference import json_parser
from runner.inference import InferenceRunner, infer_predict

from protenix_multiseed.features.seed_draws import SeededConformers


def make_configs(request: dict) -> ConfigDict:
    configs = parse_configs(
        {**configs_base, "data": data_configs, **inference_configs, "model_name": request["model"]},
        fill_required_with_null=True,
    )
    configs.update(ConfigDict(model_configs[request["model"]]))
    for path, value in request["settings"].items():
        *parents, last = path.split(".")
        node = configs
        for parent in parents:
            node = node[parent]
        with node.ignore_type():
            node[last] = value
    return configs


def main() -> None:
    logging.basicConfig(level=logging.ERROR)
    content = json.loads(Path(sys.argv[1]).read_text())
    for request in content if isinstance(content, list) else [content]:
        run(request)


def run(request: dict) -> None:
    torch.set_num_threads(request.get("threads", 2))
    configs = make_configs(request)
    runner = InferenceRunner(configs)
    for path in request["files"]:
        for seed in request["seeds"]:
            configs.input_json_path = path
            configs.seeds = [seed]
            json_parser.AllChem = SeededConformers(seed)
            ccd.get_ccd_ref_info.cache_clear()
            infer_predict(runner, configs)


if __name__ == "__main__":
    main()
