"""What every result is compared with: n-grams, boosted trees, a cache, compressors, a transformer from nothing.

A method of the field that needs no pretrained model, and that a new one has to beat, enters here.
"""

from frugal.baselines.boosted import BoostedTrees
from frugal.baselines.cache import Cache
from frugal.baselines.compression import compressed_bits_per_byte
from frugal.baselines.context_mixing import ContextMixing
from frugal.baselines.ngram import NGram
from frugal.baselines.transformer import SmallTransformer, TransformerPlan

__all__ = [
    "BoostedTrees",
    "Cache",
    "ContextMixing",
    "NGram",
    "SmallTransformer",
    "TransformerPlan",
    "compressed_bits_per_byte",
]
