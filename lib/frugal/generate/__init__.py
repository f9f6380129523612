"""Text out of any language model: sampling, streams and chat.

What asks a model for one token after another enters here. What changes the model's answers belongs to `combine`.
"""

from frugal.generate.chat import CHAT_SAMPLING, ChatSession
from frugal.generate.sampling import Sampling, generate, generate_batch, stream

__all__ = ["CHAT_SAMPLING", "ChatSession", "Sampling", "generate", "generate_batch", "stream"]
