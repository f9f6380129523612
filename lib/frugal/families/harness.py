"""Any model of this library for lm-evaluation-harness, so that it is compared on the tasks that others use.

The harness is not among what this library needs. A package of its own, mbstrdecoder, asks for an older chardet than
reading texts does; install it with that one wish set aside:

    echo 'chardet>=7.7' > overrides.txt
    uv pip install lm-eval --override overrides.txt

Then:

    import lm_eval
    from frugal.families.harness import HarnessModel
    from frugal.language_model import load_model

    lm_eval.simple_evaluate(HarnessModel(load_model("data/models/mine")), tasks=["lambada_openai"])

Source: Gao et al., A framework for few-shot language model evaluation, 2024, https://zenodo.org/records/12608602.
"""

from collections.abc import Sequence
from typing import Any

import torch
from lm_eval.api.model import LM
from tqdm.auto import tqdm

from frugal.corpora import encode_documents
from frugal.evaluate import evaluate
from frugal.generate import Sampling, generate
from frugal.language_model import LanguageModel

USUAL_TOKENS = 256  # of a generation for which a task sets no limit


class HarnessModel(LM):
    """A language model as the harness asks for it.

    Args:
        model: any model of this library.
        progress: show a bar.
    """

    def __init__(self, model: LanguageModel, *, progress: bool = False) -> None:
        super().__init__()
        self.model, self.progress = model, progress

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Of each (context, continuation): the continuation's nats after the context, negative, and whether each of
        its tokens is the likeliest.

        A model that sees a limited number of tokens is shown the last of them.
        """
        return [self._continued(*request.args) for request in tqdm(requests, disable=not self.progress)]

    def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
        """Of each (text,): its nats, negative: what `evaluate` and `frugal score` sum up."""
        rows = tqdm([request.args for request in requests], disable=not self.progress)
        return [-evaluate(self.model, text).nats if text else 0.0 for (text,) in rows]

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Of each (context, settings): how the model goes on, until one of the strings `until`."""
        return [self._generated(*request.args) for request in tqdm(requests, disable=not self.progress)]

    @torch.inference_mode()
    def _continued(self, context: str, continuation: str) -> tuple[float, bool]:
        # Spaces go to the continuation, as in the harness's own models: some tokenisers join them to the next word.
        spaces = len(context) - len(context.rstrip())
        if spaces:
            context, continuation = context[:-spaces], context[-spaces:] + continuation
        before, tokens = encode_documents(self.model.tokenizer, [context, context + continuation])
        count = len(tokens) - len(before)
        if count < 1:
            return 0.0, True
        limit = self.model.context_length
        shown = tokens if limit is None else tokens[-(limit + 1) :]
        [scores] = self.model.document_scores([shown])
        nats, ranks = scores.log_probabilities[-count:], scores.ranks[-count:]
        return float(nats.sum()), bool((ranks == 0).all())

    def _generated(self, context: str, settings: dict[str, Any]) -> str:
        until = settings.get("until", [])
        samples = settings.get("do_sample", settings.get("temperature", 0) > 0)
        chosen = Sampling(
            max_tokens=settings.get("max_gen_toks", USUAL_TOKENS),
            temperature=settings.get("temperature", 1.0) if samples else 0,
            top_p=settings.get("top_p"),
            top_k=settings.get("top_k"),
            stop=tuple([until] if isinstance(until, str) else until),
            seed=0,
        )
        return generate(self.model, context, chosen)
