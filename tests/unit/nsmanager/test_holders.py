"""What processes hold: of this very process, as far as it may look into itself."""

import errno
import os
import socket
from collections.abc import Iterator

import pytest

from crossns.layout import Layout
from services.nsmanager.agent import descriptors, holders
from services.nsmanager.agent.processes import Process, processes


@pytest.fixture(name="process")
def this_process() -> Process:
    return next(each for each in processes() if each.pid == os.getpid())


@pytest.fixture(autouse=True)
def one_socket() -> Iterator[socket.socket]:
    with socket.socket() as made:
        yield made


def refusing(code: int) -> object:
    def refuse(_made: socket.socket) -> int:
        raise OSError(code, "No")

    return refuse


def test_what_a_descriptor_does_not_tell_is_told_with_the_process(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descriptors, "namespace_of", refusing(errno.EOPNOTSUPP))
    held = holders.look([process], set(), {process.namespace}, Layout())
    (unseen,) = held.unseen.values()
    assert (unseen.pid, unseen.name) == (process.pid, process.name)
    assert unseen.why.startswith("descriptor ")
    assert unseen.why.endswith("]): No")


def test_what_ends_meanwhile_is_left_out(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descriptors, "namespace_of", refusing(errno.EBADF))
    assert holders.look([process], set(), {process.namespace}, Layout()).unseen == {}


def test_process_that_may_not_be_looked_into_says_what_the_launcher_needs(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(descriptors, "namespace_of", refusing(errno.EPERM))
    (unseen,) = holders.look([process], set(), {process.namespace}, Layout()).unseen.values()
    assert "the launcher needs CAP_SYS_PTRACE" in unseen.why
