"""A small ESM-2 with made-up weights, as two files in the form in which fair-esm publishes its models."""

import argparse
from pathlib import Path

import torch

WIDTH = 16


def write_language_model(folder: Path, name: str) -> None:
    """Write ``<name>.pt``, with its settings in an ``argparse.Namespace``, and ``<name>-contact-regression.pt``."""
    import esm

    torch.manual_seed(0)
    alphabet = esm.data.Alphabet.from_architecture("ESM-1b")
    model = esm.model.esm2.ESM2(num_layers=1, embed_dim=WIDTH, attention_heads=2, alphabet=alphabet)
    settings = argparse.Namespace(
        encoder_layers=1, encoder_embed_dim=WIDTH, encoder_attention_heads=2, token_dropout=True
    )
    state = model.state_dict()
    contact = {key: state.pop(key) for key in list(state) if key.startswith("contact_head.regression")}
    published = {f"encoder.sentence_encoder.{key}": value for key, value in state.items()}
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"cfg": {"model": settings}, "model": published}, folder / f"{name}.pt")
    torch.save({"model": contact}, folder / f"{name}-contact-regression.pt")
