"""Write a checkpoint with made-up weights, in upstream's format, for any model and any architecture.

    python scripts/make_checkpoint.py protenix_base_default_v1.0.0 out.pt --set model.pairformer.n_blocks=2

For tests and benchmarks on machines without the real weights. The predictions have no biological meaning.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from protenix_multiseed.model import demo
from protenix_multiseed.model.weights import build_model
from protenix_multiseed.settings import UpstreamSettings
from protenix_multiseed.upstream import environment
from protenix_multiseed.upstream.configs import build_configs
from protenix_multiseed.upstream.dictionary import find_dictionary
from protenix_multiseed.upstream.models import model_names


def make_checkpoint(
    model: str, path: Path, overrides: dict[str, Any], *, prefix: bool = False, seed: int = demo.SEED
) -> None:
    """Build the model, fill it with made-up weights and save ``{"model": state}``."""
    environment.prepare(find_dictionary())
    configs = build_configs(UpstreamSettings(model=model, overrides=overrides))
    state = demo.fill(build_model(configs), seed).state_dict()
    torch.save({"model": {("module." if prefix else "") + key: value for key, value in state.items()}}, path)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=model_names())
    parser.add_argument("path", type=Path)
    parser.add_argument(
        "--prefix", action="store_true", help="start every key with 'module.', as distributed training does"
    )
    parser.add_argument("--seed", type=int, default=demo.SEED)
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="PATH=VALUE",
        help="set a setting of Protenix, by dotted path; VALUE is JSON",
    )
    arguments = parser.parse_args()
    pairs = (item.split("=", maxsplit=1) for item in arguments.set)
    make_checkpoint(
        arguments.model,
        arguments.path,
        {key: json.loads(value) for key, value in pairs},
        prefix=arguments.prefix,
        seed=arguments.seed,
    )


if __name__ == "__main__":
    main()
