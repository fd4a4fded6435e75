"""TOML files that people write: what they say, and in which line they are mistaken."""
