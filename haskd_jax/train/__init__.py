"""Training: states, steps, schedules, checkpoints, evaluation."""
