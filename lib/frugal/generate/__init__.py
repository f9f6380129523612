"""Text out of any language model: sampling, streams, chat, and guidance by a text."""

from frugal.generate.chat import CHAT_SAMPLING, ChatSession
from frugal.generate.guide import GuidedModel
from frugal.generate.sampling import Sampling, generate, generate_batch, stream

__all__ = ["CHAT_SAMPLING", "ChatSession", "GuidedModel", "Sampling", "generate", "generate_batch", "stream"]
