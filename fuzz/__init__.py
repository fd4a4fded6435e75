"""Fuzzing of everything that decodes bytes from outside, guided by coverage (atheris). See docs/testing.md."""
