"""Frozen pretrained language models: by packaged name, folder, GGUF file or hub id; their hidden states and head.

What may enter: what reads, runs, caches or saves a foundation as it is; nothing that is trained on one.
"""

from frugal.foundation.loading import load_foundation
from frugal.foundation.model import Foundation
from frugal.foundation.parts import copied_cache
from frugal.foundation.saving import save_on_foundation, saved_foundation
from frugal.foundation.tokenizer import PretrainedTokenizer
from frugal.foundation.windowed import WindowedFoundation

__all__ = [
    "Foundation",
    "PretrainedTokenizer",
    "WindowedFoundation",
    "copied_cache",
    "load_foundation",
    "save_on_foundation",
    "saved_foundation",
]
