"""One run: its folder, record, phases, and how it starts and stops."""
