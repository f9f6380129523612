"""Models compute where they are: no tensor is made on another device than theirs.

While a model runs, torch's default device is one that computes nothing and mixes with no other. So whatever the model
makes without saying where fails, as it would beside a model on a GPU.
"""

import copy

import pytest
import torch

from frugal.evaluate import evaluate
from frugal.foundation import Foundation
from frugal.generate import Sampling, generate
from models import EVERY_MODEL, random_gpt2

ON_A_FOUNDATION = [name for name in EVERY_MODEL if name.startswith(("foundation", "echo", "memory"))]


@pytest.mark.parametrize("name", ON_A_FOUNDATION)
def test_a_model_says_where_its_tensors_are_to_be(name: str) -> None:
    model = EVERY_MODEL[name]()
    tokens = torch.randint(1, 250, (2, 9), generator=torch.Generator().manual_seed(0))
    with torch.device("meta"), torch.no_grad():
        scores = model.log_probabilities(tokens)
        ranks = model.target_scores(tokens).ranks
        logits, state = model.feed(tokens, model.start(2))
        for _ in range(12):  # over the end of windows
            logits, state = model.step(tokens[:, 0], state)
    assert scores.device == ranks.device == logits.device == model.device


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_cuda_a_model_gives_what_it_gives_on_the_processor() -> None:
    here = random_gpt2()
    there = Foundation(copy.deepcopy(here.model).to("cuda"), here.tokenizer, name="random GPT-2")
    text = "the cat sat on the mat."
    assert evaluate(there, text).nats == pytest.approx(evaluate(here, text).nats, rel=1e-4)
    greedy = Sampling(max_tokens=12, temperature=0)
    assert generate(there, "the", greedy) == generate(here, "the", greedy)
