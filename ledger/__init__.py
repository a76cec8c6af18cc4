"""The append-only record of everything that was decided, and the custody of the keys that sign it."""
