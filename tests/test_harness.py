"""Models of this library in lm-evaluation-harness, where that is installed; no task is fetched."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed: nothing to be scored by")

from frugal.baselines import NGram
from frugal.evaluate import evaluate
from frugal.families.harness import HarnessModel
from models import TEXTS, characters, random_gpt2

TASK = """\
task: rhymes
dataset_path: json
dataset_kwargs:
  data_files: {data}
output_type: {kind}
test_split: train
doc_to_text: "{text}"
doc_to_target: "{target}"
metric_list:
  - metric: {metric}
"""


def asked(*args: object) -> list[SimpleNamespace]:
    return [SimpleNamespace(args=args)]


def counted() -> NGram:
    return NGram(4, characters()).fit(TEXTS)


def test_a_rolling_likelihood_is_the_score() -> None:
    for model in (counted(), random_gpt2()):
        [nats] = HarnessModel(model).loglikelihood_rolling(asked(TEXTS[0]))
        assert nats == pytest.approx(-evaluate(model, TEXTS[0]).nats)


def test_context_and_continuation_make_the_whole() -> None:
    model = HarnessModel(counted())
    [(first, _)] = model.loglikelihood(asked("", "the cat"))
    [(second, greedy)] = model.loglikelihood(asked("the cat ", "sat on"))
    [whole] = model.loglikelihood_rolling(asked("the cat sat on"))
    assert first + second == pytest.approx(whole)
    assert greedy == (model.generate_until(asked("the cat", {"max_gen_toks": 7}))[0] == " sat on")


def test_a_limited_model_is_shown_the_end_of_a_long_context() -> None:
    [(nats, _)] = HarnessModel(random_gpt2()).loglikelihood(asked("the cat sat on the mat. " * 20, "the dog"))
    assert math.isfinite(nats)


def test_a_generation_ends_before_a_stop_string() -> None:
    [text] = HarnessModel(counted()).generate_until(asked("the cat", {"until": ["o"], "max_gen_toks": 20}))
    assert text
    assert "o" not in text


def test_a_task_file_is_scored_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lm_eval = pytest.importorskip("lm_eval.evaluator", reason="the harness's own requirements are not installed")
    from lm_eval.tasks import TaskManager

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    rows = [{"text": text} for text in TEXTS]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    filled = {"data": tmp_path / "rows.jsonl", "text": "", "target": "{{text}}", "metric": "bits_per_byte"}
    (tmp_path / "rhymes.yaml").write_text(TASK.format(kind="loglikelihood_rolling", **filled), encoding="utf-8")
    tasks = TaskManager(include_path=str(tmp_path), include_defaults=False)
    found = lm_eval.simple_evaluate(HarnessModel(counted()), tasks=["rhymes"], task_manager=tasks, bootstrap_iters=0)
    assert found["results"]["rhymes"]["bits_per_byte,none"] == pytest.approx(evaluate(counted(), TEXTS).bits_per_byte)
