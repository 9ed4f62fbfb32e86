from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test
from tests.unit.proxy.changes import Changes
def test_whatever_changes_everybody_has_his_line_in_the_end() -> None:
    run_state_machine_as_test(Changes, settings=settings(stateful_step_count=20))
