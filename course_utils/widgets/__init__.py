"""What a learner sees and touches: live views of the real model."""
