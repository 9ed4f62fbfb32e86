"""Whether a member is up or down, by what its checks found one after the other: counted, so that one lost packet is none.

Called by the driver's checks. A member that nothing is known of is up: a new one serves at once, and one that should not is
found by HAProxy's own attempts meanwhile.
"""

from dataclasses import dataclass

# Failures in a row that take a member out, successes in a row that take it back.
FALL = 2
RISE = 2
# Failures in a row, all for one other reason, after which a member is down for that. A host that is switched off fails in two
# ways by turns, as the kernel has just given up its neighbour entry or asks for it again: nobody wants to hear of each.
ANOTHER = 5


@dataclass(frozen=True, slots=True)
class Verdict:
    """`reason` is why it is down, "" while it is up. The last `count` outcomes said `heard` instead."""

    reason: str = ""
    heard: str = ""
    count: int = 0

    @property
    def is_shaken(self) -> bool:
        """Whether the next outcomes may take it out, or back."""
        return self.count > 0 and bool(self.heard) != bool(self.reason)

    def after(self, outcome: str) -> "Verdict":
        """The verdict after one more check, which failed for the reason `outcome`, or succeeded with ""."""
        if outcome == self.reason:
            return Verdict(self.reason)
        # Whatever the reasons are, it is failures that take it out.
        goes_on = self.count > 0 and (outcome == self.heard or not self.reason)
        count = self.count + 1 if goes_on else 1
        return Verdict(outcome) if count >= self._enough(outcome) else Verdict(self.reason, outcome, count)

    def _enough(self, outcome: str) -> int:
        if not self.reason:
            return FALL
        return ANOTHER if outcome else RISE
