"""The version, alone in a file so that reading it imports nothing."""

VERSION = "1.0.0"
