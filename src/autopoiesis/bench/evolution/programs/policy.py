"""What ours evolves: a policy whose plan says the score in its memory."""

from autopoiesis.policy import Decision, ServingState

interface = 1

CONST = 0.1


def should_reschedule(state: ServingState) -> bool:
    return True


def plan(state: ServingState) -> Decision:
    # LOOP
    return Decision(plan=state.plan, memory={"score": 1.0 - (CONST - 0.7) ** 2})
