"""Django's PostgreSQL, with a cheaper way to see whether a kept connection still stands."""
