"""Tests of Guardhouse; `tests.services` sets the environment that they all run in."""
