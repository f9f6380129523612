"""What every result is compared with: n-grams, boosted trees, a continuous cache, general-purpose compressors.

A method of the field that needs no pretrained model, and that a new one has to beat, enters here.
"""

from frugal.baselines.boosted import BoostedTrees
from frugal.baselines.cache import Cache
from frugal.baselines.compression import compressed_bits_per_byte
from frugal.baselines.ngram import NGram

__all__ = ["BoostedTrees", "Cache", "NGram", "compressed_bits_per_byte"]
