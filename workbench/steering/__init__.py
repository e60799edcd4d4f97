"""Specs and what they do to a pipeline: derive one from a recording, attach it, take it off again."""
