"""A throwaway table of nftables that ends with whoever made it: the kernel removes it when its owner's socket closes.

Called by `trial`. Spoken through libnftables, whose context keeps that socket (NFT_TABLE_F_OWNER, nft(8) `flags owner`).
"""

import ctypes
import errno
import json
import os
from functools import cache
from typing import Any

_LIBRARY = "libnftables.so.1"
# nftables/libnftables.h
_OUTPUT_JSON = 1 << 4


class Refused(Exception):
    """`words` are the kernel's or the library's."""

    def __init__(self, words: str) -> None:
        super().__init__(words)
        self.words = words

    @property
    def is_taken(self) -> bool:
        """Whether such a table is there: what another one owns may not even be looked at."""
        return any(os.strerror(code) in self.words for code in (errno.EEXIST, errno.EPERM))


@cache
def library() -> ctypes.CDLL:
    """Loaded once; raises Refused where the device has none."""
    try:
        loaded = ctypes.CDLL(_LIBRARY)
    except OSError as error:
        raise Refused(f"this device has no {_LIBRARY}: install nftables") from error
    loaded.nft_ctx_new.restype = ctypes.c_void_p
    loaded.nft_ctx_get_output_buffer.restype = ctypes.c_char_p
    loaded.nft_ctx_get_error_buffer.restype = ctypes.c_char_p
    return loaded


class Ruleset:
    """A table `inet <name>` in the calling thread's namespace, for as long as this object is open."""

    def __init__(self, name: str, commands: str) -> None:
        """`commands` are made behind the table, all or none; raises Refused."""
        self._name = name
        self._library = library()
        self._context = ctypes.c_void_p(self._library.nft_ctx_new(0))
        self._library.nft_ctx_buffer_output(self._context)
        self._library.nft_ctx_buffer_error(self._context)
        self._library.nft_ctx_output_set_flags(self._context, _OUTPUT_JSON)
        try:
            self._run(f"create table inet {name} {{ flags owner; }}\n{commands}")
        except Refused:
            self.close()
            raise

    def counted(self) -> dict[str, int]:
        """Packets by the name of a counter."""
        told = json.loads(self._run(f"list counters table inet {self._name}"))
        counters = (each["counter"] for each in told["nftables"] if "counter" in each)
        return {each["name"]: each["packets"] for each in counters}

    def close(self) -> None:
        self._library.nft_ctx_free(self._context)

    def _run(self, commands: str) -> Any:
        failed = self._library.nft_run_cmd_from_buffer(self._context, commands.encode())
        if failed:
            said = self._library.nft_ctx_get_error_buffer(self._context).decode(errors="replace")
            raise Refused(said.partition("\n")[0])
        return self._library.nft_ctx_get_output_buffer(self._context)
