"""The version, alone in a file so that reading it imports nothing."""

VERSION = "1.0.0"
BUILT_AFTER = "2026-01-01"  # all builds are younger: a clock that shows less is wrong
