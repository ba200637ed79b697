"""Tables for the terminal: the plan, and the state of its cells."""
