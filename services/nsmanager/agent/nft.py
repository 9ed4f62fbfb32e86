"""Transactions of nftables by libnftables: text as nft(8) takes it, all of it or nothing.

Called by the agent's `budgets`. An agent loads the library for its first transaction and not before: most tables need none. A
context lives for one transaction; what it would keep beyond, half a megabyte, is worth more than the milliseconds that it takes
to make. Nothing that comes from outside of the agent enters the text but numbers.
"""

import ctypes

from crossns import errors
from services.nsmanager.agent import ruleset


def run(script: str, what: str) -> None:
    """Carry out one transaction in the namespace of the calling thread; PermanentError KERNEL_REFUSED says which words came back
    when it was to `what`."""
    try:
        _run(ruleset.library(), script)
    except ruleset.Refused as refused:
        message = f"cannot {what}: {errors.bounded(' '.join(refused.words.split()))}"
        raise errors.PermanentError("KERNEL_REFUSED", message) from refused


def _run(library: ctypes.CDLL, script: str) -> None:
    context = ctypes.c_void_p(library.nft_ctx_new(0))
    try:
        library.nft_ctx_buffer_output(context)
        library.nft_ctx_buffer_error(context)
        if library.nft_run_cmd_from_buffer(context, script.encode("ascii")) != 0:
            raise ruleset.Refused(library.nft_ctx_get_error_buffer(context).decode(errors="replace"))
    finally:
        library.nft_ctx_free(context)
