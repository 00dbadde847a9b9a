"""Numbers the planner ships: public models, and constants fitted to published measurements."""
