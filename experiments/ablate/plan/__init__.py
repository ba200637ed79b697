"""From cells to runs: resolved configs, hashes, jobs, cost."""
