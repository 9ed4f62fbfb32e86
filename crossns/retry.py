"""How long to wait before the next attempt, as a pure value. Who retries is `reconcile` and those that hold a connection.

The dice are the caller's, so that a delay can be computed in a test.
"""

from dataclasses import dataclass

# Half the width of the spread around a delay, as a part of it: enough that those who failed together do not return together.
SPREAD = 0.2


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential: `first_s`, then `factor` times as long each time, at most `max_s`."""

    first_s: float
    factor: float
    max_s: float

    def delay(self, attempt: int, roll: float = 0.5) -> float:
        """Seconds to wait after a failure; `attempt` is 0 for the first. `roll` (0..1, from `random.random()`) spreads it
        evenly over 20 % to either side; 0.5 leaves it as it is."""
        delay_s = self.first_s
        for _ in range(attempt):
            if delay_s >= self.max_s:
                break
            delay_s *= self.factor
        return min(delay_s, self.max_s) * (1 + SPREAD * (2 * roll - 1))
