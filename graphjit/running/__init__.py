"""Running passes, watched: `runner.py` runs them, `instruments.py` verifies, times, dumps and compares."""
