"""A HAProxy of values: takes a configuration whole or not at all, as the real one does, and says no more than it does."""

import dataclasses
from dataclasses import dataclass, field

from services.proxy import model, plan, render
from services.proxy.plan import trial
from tests.unit.proxy import sample


@dataclass
class Engine:
    """`held`: listeners that cannot be opened; `faulty`: parts that the check of the file names; `starts`: texts it was given."""

    held: frozenset[render.Part] = frozenset()
    faulty: frozenset[render.Part] = frozenset()
    observed: plan.Observed = field(
        default_factory=lambda: plan.Observed(sample.LIMITS, namespaces=frozenset(sample.TABLES.values()))
    )
    starts: list[str] = field(default_factory=list)
    # Every set of parts that was ever served.
    served: list[frozenset[render.Part]] = field(default_factory=list)

    def apply(self, op: plan.Operation) -> bool:
        """Whether it worked."""
        if isinstance(op, plan.StopEngine):
            self._become(running=False, digest="", serving=frozenset())
            return True
        self.starts.append(op.config)
        parts = trial.parts(op.config)
        if words := " ".join(f"[/run/x.cfg:{number}] : no" for number, part in parts.items() if part in self.faulty):
            self._become(trial=plan.failed(self.observed.trial, op.config, op.new, words))
            return False
        if self.held & set(parts.values()):
            self._become(
                trial=plan.failed(self.observed.trial, op.config, op.new, "cannot open a listener"), running=True, digest=""
            )
            return False
        self._become(
            trial=plan.succeeded(self.observed.trial),
            running=True,
            digest=plan.digest(op.config),
            serving=frozenset(parts.values()),
        )
        return True

    def settle(self, desired: model.Desired, rounds: int = 60) -> int:
        """Rounds until nothing is left to do."""
        for count in range(rounds):
            ops = plan.plan(desired, self.observed)
            if not ops:
                return count
            for op in ops:
                self.apply(op)
        raise AssertionError(f"not settled after {rounds} rounds")

    def _become(self, **fields: object) -> None:
        self.observed = dataclasses.replace(self.observed, **fields)  # type: ignore[arg-type]
        self.served.append(self.observed.serving)
