"""`scripts/bench perplexity`: what the integers cost. Perplexity of a text under float32 and under W8A12.

Windows of 255 tokens behind a begin-of-text token; the float reference needs torch (installed by `scripts/test`).
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import click
import numpy as np
import torch

from node.execution.hybrid import HybridExecutor
from node.kernels import select_kernels
from node.model.decoder import Decoder
from node.store.gguf.checkpoint import GgufCheckpoint
from node.store.gguf.parts import is_gguf
from node.store.hf.checkpoint import open_checkpoint
from node.store.hf.reference import ReferenceModel
from node.store.library import BUILT_IN_FOLDER, Library
from protocol.linear.field import Floats

WINDOW_TOKENS = 255


def perplexities(folder: Path, models_dir: Path, text: str, num_windows: int) -> tuple[float, float]:
    """Perplexity of a text under the float reference and under the integer decoder.

    Args:
        folder: a checkpoint, or a GGUF file.
    """
    torch.set_num_threads(1)  # with more, torch's threads wait for each other on a busy machine
    kernels, model = select_kernels(1), Library(models_dir).resolve(folder)
    decoder = Decoder.of_units(model, kernels, HybridExecutor(kernels))
    reference = ReferenceModel(GgufCheckpoint(folder) if is_gguf(folder) else open_checkpoint(folder))
    ids = model.tokenizer().encode(text, add_special=False)
    start = [] if model.config.bos_id is None else [model.config.bos_id]
    in_float, in_integers = list[float](), list[float]()
    for window in range(num_windows):
        part = start + ids[window * WINDOW_TOKENS : (window + 1) * WINDOW_TOKENS]
        if len(part) < WINDOW_TOKENS:
            raise click.ClickException(f"the text has fewer than {num_windows} windows of {WINDOW_TOKENS} tokens")
        in_float += token_losses(reference.logits(part), part)
        in_integers += token_losses(decoder.forward(part, decoder.new_cache(), all_logits=True), part)
    return float(np.exp(np.mean(in_float))), float(np.exp(np.mean(in_integers)))


def token_losses(logits: Floats, token_ids: list[int]) -> list[float]:
    """Cross-entropy, in nats, of each token after the first: logits f32[T, V]."""
    shifted = logits[:-1].astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    picked = shifted[np.arange(len(token_ids) - 1), token_ids[1:]]
    losses: list[float] = (np.log(np.exp(shifted).sum(axis=1)) - picked).tolist()
    return losses


@click.command()
@click.argument("text", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--checkpoint", type=click.Path(exists=True, path_type=Path), default=BUILT_IN_FOLDER)
@click.option("--windows", type=int, default=40, show_default=True)
def main(text: Path, checkpoint: Path, windows: int) -> None:
    """Compare the perplexity of the file TEXT under float32 and under W8A12."""
    with tempfile.TemporaryDirectory() as models_dir:
        content = text.read_text(errors="ignore")[: windows * 4000]
        in_float, in_integers = perplexities(checkpoint, Path(models_dir), content, windows)
    click.echo(f"float32 {in_float:.4f}   W8A12 {in_integers:.4f}   {100 * (in_integers / in_float - 1):+.2f} %")


if __name__ == "__main__":
    main(prog_name="scripts/bench perplexity")
