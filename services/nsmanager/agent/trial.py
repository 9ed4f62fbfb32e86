"""A trial in this table: it comes to hold what all tables hold, sends on its own pair of links, and shows what it sees.

Called by the agent's operations. There is one at a time; it ends by itself when nobody goes on with it, and with the agent.
"""

import contextlib
import time
from collections.abc import Callable

from crossns import proof
from services.nsmanager.agent import frame, ground, holding, throwaway, traces
from services.nsmanager.agent.holding import Trial
from services.nsmanager.agent.rtnl import Rtnl
from services.nsmanager.launcher import session

# A loaded machine takes its time for what usually is through at once.
_TRY_S, _TRIES = 0.01, 50

Later = Callable[[float, Callable[[], None]], object]


class Trials:
    """What the agent does for the examiner: the trial, and the looks before and after it."""

    def __init__(self, rtnl: Rtnl, later: Later) -> None:
        self._rtnl = rtnl
        self._later = later
        self._trial: Trial | None = None
        self._heard = 0.0

    def dispatch(self, wanted: proof.AgentOperation, answer: session.Answer) -> None:
        match wanted:
            case proof.ProbeGround():
                answer(ground.probe(self._rtnl, wanted))
            case proof.BeginTrial():
                answer(self.begin(wanted))
            case proof.PlayTrial():
                self.play()
                answer(None)
            case proof.ReadTrial():
                self.read(answer)
            case proof.EndTrial():
                self.end()
                answer(None)

    def begin(self, wanted: proof.BeginTrial) -> proof.Held:
        self.end()
        self._trial = Trial(wanted)
        self._heard = time.monotonic()
        self._later(wanted.patience_s, lambda: self._end_unless_heard(wanted))
        return proof.Held(steps=tuple(holding.hold(self._rtnl, self._trial)))

    def play(self) -> None:
        """Frames go into the far end, come out of the near one, and answers come back."""
        trial = self._going_on()
        if trial is None or trial.wire is None:
            return
        number = trial.wanted.number
        macs = (frame.numbered_mac(number), bytes.fromhex(throwaway.NEAR_MAC.replace(":", "")))
        numbers = (number, 0) if trial.ruleset is not None else (number,)
        for near, far in trial.sides:
            trial.sent += 1
            # Somebody may have taken the link, or set it down: what does not arrive is told for that.
            with contextlib.suppress(OSError):
                trial.wire.send(frame.question(macs[0], far, near))
                for each in numbers:
                    payload = frame.sealed(trial.wanted.seal, each)
                    trial.wire.send(frame.datagram(macs, far, near, trial.wanted.ground.port, payload))

    def read(self, answer: session.Answer, tries: int = _TRIES) -> None:
        """Answers when what was sent has come through the firewall, or has had the time to."""
        trial = self._going_on()
        if trial is None or traces.is_settled(trial) or not tries:
            answer(traces.read(self._rtnl, trial))
        else:
            self._later(_TRY_S, lambda: self.read(answer, tries - 1))

    def end(self) -> None:
        """Nothing of it stays."""
        if self._trial is not None:
            self._trial.close()
            self._trial = None
            throwaway.sweep(self._rtnl)

    def _going_on(self) -> Trial | None:
        self._heard = time.monotonic()
        return self._trial

    def _end_unless_heard(self, wanted: proof.BeginTrial) -> None:
        if self._trial is None or self._trial.wanted is not wanted:
            return
        left_s = self._heard + wanted.patience_s - time.monotonic()
        if left_s > 0:
            self._later(left_s, lambda: self._end_unless_heard(wanted))
        else:
            self.end()
