"""Frozen pretrained language models: by packaged name, folder or hub id; their hidden states and head."""

from frugal.foundation.loading import load_foundation
from frugal.foundation.model import Foundation
from frugal.foundation.saving import save_on_foundation, saved_foundation
from frugal.foundation.tokenizer import PretrainedTokenizer

__all__ = ["Foundation", "PretrainedTokenizer", "load_foundation", "save_on_foundation", "saved_foundation"]
