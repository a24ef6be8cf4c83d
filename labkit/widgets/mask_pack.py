"""The position bits of a 2:4 mask as the browser reads them."""

import numpy as np

from labkit import checks


def pack_rows(kept: np.ndarray) -> np.ndarray:
    """bool (..., features) -> uint8 (..., ceil(features / 8)): sparse24's metadata in layout "rows".

    Group 2j is the low nibble of byte j, i0 | i1 << 2. ValueError if a group does not keep exactly two.
    """
    groups = kept.reshape(*kept.shape[:-1], -1, 4)
    if not (groups.sum(-1) == 2).all():
        checks.fail("trace.kept", sorted(set(groups.sum(-1).ravel().tolist())), "two kept of every four")
    first, second = groups.argmax(-1), 3 - groups[..., ::-1].argmax(-1)
    nibbles = (first | second << 2).astype(np.uint8)
    if nibbles.shape[-1] % 2:
        nibbles = np.concatenate((nibbles, np.zeros_like(nibbles[..., :1])), -1)
    return nibbles[..., ::2] | nibbles[..., 1::2] << 4
