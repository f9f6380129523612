"""What every result is compared with: n-grams, boosted trees, a continuous cache, general-purpose compressors."""

from frugal.baselines.boosted import BoostedTrees
from frugal.baselines.cache import Cache
from frugal.baselines.compression import compressed_bits_per_byte
from frugal.baselines.ngram import NGram

__all__ = ["BoostedTrees", "Cache", "NGram", "compressed_bits_per_byte"]
