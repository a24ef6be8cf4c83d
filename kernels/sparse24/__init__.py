"""2:4 activation sparsity: keep the two largest of every four, pack them, multiply by the packed form.

Liftable: this package needs torch alone; Triton and cuSPARSELt are used where they are found.
"""

from sparse24.dispatch import compress, decompress, mask24, matmul, relu2_compress, relu2_ffn, sparsify
from sparse24.packed import Packed

__all__ = [
    "Packed",
    "compress",
    "decompress",
    "mask24",
    "matmul",
    "relu2_compress",
    "relu2_ffn",
    "sparsify",
]
