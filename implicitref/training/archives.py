"""The functions of `implicitref.archives`, under the name that they had before."""

from ..archives import DEFLATE_LIMIT, check_settings, read_npz, unwritable, write_atomically

__all__ = ["DEFLATE_LIMIT", "check_settings", "read_npz", "unwritable", "write_atomically"]
