"""A GPT-2 trained here from nothing in about half a minute, for tests and experiments that need its architecture."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from frugal.corpora import Blocks, BytePairTokenizer, encode_in_a_row, load_corpus
from frugal.evaluate import evaluate
from frugal.foundation.model import Foundation
from frugal.training import fit

CORPUS = "topics"
VOCABULARY_SIZE = 4096
CONTEXT = 128
STEPS = 160
BATCH_SIZE = 8


def make_tiny_gpt2(folder: Path) -> None:
    """Train on the training split of Python's help topics; the folder appears when all is done.

    1.3 million parameters, 164,000 tokens seen. The seed is fixed and torch's random state is left as it was.
    """
    from pytorch_optimizer import Muon  # take seconds
    from transformers import GPT2Config, GPT2LMHeadModel

    corpus = load_corpus(CORPUS)
    tokenizer = BytePairTokenizer.train((document.text for document in corpus.train), VOCABULARY_SIZE)
    tokens = encode_in_a_row(tokenizer, corpus.train)
    # Any place in the text may begin a block: it is gone through several times, differently cut each time.
    blocks = DataLoader(Blocks(tokens, CONTEXT, stride=1), BATCH_SIZE, shuffle=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=tokenizer.vocabulary_size,
                n_positions=CONTEXT,
                n_embd=128,
                n_layer=4,
                n_head=4,
                resid_pdrop=0.0,
                embd_pdrop=0.0,
                attn_pdrop=0.0,
                bos_token_id=tokenizer.start_id,
                eos_token_id=tokenizer.start_id,
            )
        )
        # Muon (Jordan et al., 2024) for the matrices within: AdamW alone takes more than twice the time.
        trunk = model.transformer
        within = [weights for weights in trunk.h.parameters() if weights.ndim == 2]
        rest = [trunk.wte.weight, trunk.wpe.weight, *(weights for weights in trunk.parameters() if weights.ndim < 2)]
        optimizer = Muon(
            [
                {"params": within, "use_muon": True, "lr": 0.04, "weight_decay": 0.01},
                {"params": rest, "use_muon": False, "lr": 8e-3, "betas": (0.9, 0.95), "weight_decay": 0.1},
            ]
        )
        losses = fit(
            model,
            next_token_loss,
            blocks,
            optimizer,
            steps=STEPS,
            schedule=lambda done: 1 - done,
            title="training tiny-gpt2",
        )
    foundation = Foundation(model, tokenizer, name="tiny-gpt2")
    scores = evaluate(foundation, corpus.valid)
    card = f"""# tiny-gpt2

GPT-2 with {CONTEXT} tokens of context, trained from nothing for {len(losses)} steps of {BATCH_SIZE} blocks
on the training split of "{corpus.name}": {corpus.description} ({corpus.licence}).

Validation split: {scores.bits_per_byte:.3f} bits per byte, {scores.nats / scores.tokens:.3f} nats per token.
Training loss at the end: {np.mean(losses[-20:]):.3f} nats per token.
"""
    foundation.save(folder, card)


def next_token_loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Mean negative log-likelihood, in nats per token, of targets [B, T] given inputs [B, T].

    Example:
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> model = GPT2LMHeadModel(GPT2Config(vocab_size=50257, n_positions=8, n_embd=12, n_layer=1))
        >>> tokens = torch.tensor([[1, 2, 3, 4]])
        >>> next_token_loss(model, (tokens[:, :-1], tokens[:, 1:])).ndim
        0
    """
    inputs, targets = batch
    return nn.functional.cross_entropy(model(inputs).logits.flatten(0, 1), targets.flatten())
