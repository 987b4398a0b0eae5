"""Which of the services that can take a call takes it: one table of pure functions."""

from router.routing.policies import POLICIES, Candidate, Policy

__all__ = ["POLICIES", "Candidate", "Policy"]
