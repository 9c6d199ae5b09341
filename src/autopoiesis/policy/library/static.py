"""Never change anything: the plan it starts on serves to the end.

What most deployments do: choose parallelism and replica counts by trial on past traffic, then leave them alone. Every
run starts on such a plan, chosen for its objective, so this is also what a policy has to beat.
"""

from autopoiesis.policy import Decision, ServingState

interface = 1


def should_reschedule(state: ServingState) -> bool:
    return False


def plan(state: ServingState) -> Decision:
    return Decision(plan=state.plan)
