"""Floor 0: errors, configuration, console, events, run directories. Imports nothing of ours."""
