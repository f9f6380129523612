"""Text out of any language model: sampling, streams and chat."""

from frugal.generate.chat import CHAT_SAMPLING, ChatSession
from frugal.generate.sampling import Sampling, generate, generate_batch, stream

__all__ = ["CHAT_SAMPLING", "ChatSession", "Sampling", "generate", "generate_batch", "stream"]
